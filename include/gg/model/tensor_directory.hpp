// Checks a file's tensors against what a model's layer type asks for: each one present, of the right shape
// and of a type it may have, and none left over. Missing and surplus tensors are listed by name, all at once.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "gg/format/validate.hpp"
#include "gg/gguf/file.hpp"

namespace gg {

class TensorDirectory {
  public:
    explicit TensorDirectory(const gguf::File& file) : file_(file) {}

    const gguf::File& file() const { return file_; }
    bool has(const std::string& name) const { return file_.tensor(name) != nullptr; }

    /// The tensor of a name if it is there; a missing one is noted for finish(). Refuses another shape, in
    /// GGUF order; trailing dimensions of 1 may be absent.
    const TensorView* take(const std::string& name, std::initializer_list<int> shape) {
        const TensorView* tensor = file_.tensor(name);
        if (!tensor) {
            if (std::find(missing_.begin(), missing_.end(), name) == missing_.end()) missing_.push_back(name);
            return nullptr;
        }
        bool fits = true;
        std::size_t i = 0;
        std::string expected;
        for (const int n : shape) {
            fits = fits && tensor->shape[i++] == static_cast<std::uint64_t>(n);
            expected += (expected.empty() ? "[" : ", ") + std::to_string(n);
        }
        for (; i < tensor->shape.size(); ++i) fits = fits && tensor->shape[i] == 1;
        if (!fits)
            refuse({.file = file_.name(),
                    .field = "tensor " + name,
                    .expected = "shape " + expected + "]",
                    .found = shape_text(*tensor)});
        taken_.insert(tensor->name);
        return tensor;
    }

    /// The same for a tensor of floats that is read whole: F32, F16 or BF16.
    const TensorView* take_floats(const std::string& name, std::initializer_list<int> shape) {
        const TensorView* tensor = take(name, shape);
        if (tensor && info(tensor->type).elements != 1)
            refuse({.file = file_.name(),
                    .field = "tensor " + name,
                    .expected = "type F32, F16 or BF16",
                    .found = std::string(info(tensor->type).name)});
        return tensor;
    }

    /// Refuses the file if tensors are missing or were never asked for.
    void finish() const {
        std::vector<std::string> surplus;
        for (const TensorView& tensor : file_.tensors())
            if (!taken_.count(tensor.name)) surplus.push_back(tensor.name);
        if (missing_.empty() && surplus.empty()) return;
        std::string found = missing_.empty() ? "" : list(missing_, "missing");
        if (!surplus.empty()) found += (found.empty() ? "" : "; ") + list(surplus, "surplus");
        refuse({.file = file_.name(),
                .field = "tensors",
                .expected = missing_.empty() ? "only those that the architecture has"
                                             : "every tensor of the architecture",
                .found = found});
    }

    /// Refuses MXFP4 blocks whose scale is NaN (E8M0 = 255). Reads every scale.
    void require_valid_blocks() const {
        for (const TensorView& tensor : file_.tensors()) {
            if (tensor.type != DType::mxfp4) continue;
            if (const auto block = format::find_invalid_block(tensor))
                refuse({.file = file_.name(),
                        .field = "tensor " + tensor.name + ", block " + std::to_string(*block),
                        .expected = "an E8M0 scale from 0 to 254",
                        .found = "255, which is not a number",
                        .next_step = "The file is damaged: get it again."});
        }
    }

  private:
    /// "2 missing: a, b"
    static std::string list(const std::vector<std::string>& names, const std::string& kind) {
        constexpr std::size_t shown = 12;
        std::string text = std::to_string(names.size()) + " " + kind + ": ";
        for (std::size_t i = 0; i < std::min(shown, names.size()); ++i) text += (i ? ", " : "") + names[i];
        if (names.size() > shown) text += " and " + std::to_string(names.size() - shown) + " more";
        return text;
    }

    const gguf::File& file_;
    std::vector<std::string> missing_;
    std::set<std::string> taken_;
};

}  // namespace gg
