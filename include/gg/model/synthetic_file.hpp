// A model of random weights that takes no disk and hardly any memory: a parsed GGUF file whose header and
// vectors are in memory and whose matrices are address space only. What lies at an address of a matrix is
// told by its recipe, and whoever needs the bytes makes them (cuda/synthetic_source.hpp); the memory there
// holds zeros. F32 tensors (norms, biases, sinks, routers, positions) are really there. All tensors' bytes,
// there or made, are those of the file that `gg synth` writes of the same model and seed. It has no
// tokenizer.
//
// Errors: gg::Error out_of_memory if the system gives no address space.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "gg/gguf/file.hpp"
#include "gg/model/synthetic_fill.hpp"
#include "gg/model/synthetic_metadata.hpp"
#include "gg/model/synthetic_presets.hpp"

namespace gg {

namespace detail {

/// Zeros that take memory only where they are written to.
class AddressSpace {
  public:
    explicit AddressSpace(std::size_t bytes) : bytes_(bytes) {
        void* const address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (address == MAP_FAILED)
            throw Error(ErrorCode::out_of_memory,
                        {.file = {},
                         .field = "a model of random weights",
                         .expected = std::to_string(bytes) + " bytes of address space",
                         .found = std::generic_category().message(errno),
                         .next_step = {}});
        data_ = static_cast<std::byte*>(address);
    }
    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;
    ~AddressSpace() { ::munmap(data_, bytes_); }

    std::span<std::byte> bytes() const { return {data_, bytes_}; }

  private:
    std::byte* data_ = nullptr;
    std::size_t bytes_;
};

}  // namespace detail

class SyntheticFile {
  public:
    /// The model of a preset (synthetic_presets.hpp).
    static SyntheticFile of_preset(std::string_view name, std::uint64_t seed = 1) {
        return with_synthetic_preset(name, [&](auto family, const SyntheticModel& model) {
            return SyntheticFile(family, model, seed);
        });
    }

    template <class Family>
    SyntheticFile(Family, const SyntheticModel& model, std::uint64_t seed) {
        gguf::Writer writer;
        set_synthetic_metadata<Family>(writer, model);
        const std::vector<SyntheticTensor> tensors = synthetic_tensors<Family>(model);
        for (const SyntheticTensor& tensor : tensors)
            writer.add_tensor(
                tensor.view.name, tensor.view.type,
                std::span(tensor.view.shape).first(static_cast<std::size_t>(tensor.view.dimensions)),
                gguf::ByteSource());
        const std::vector<std::byte> header = writer.header();
        memory_ = std::make_unique<detail::AddressSpace>(writer.file_bytes());
        std::byte* const begin = memory_->bytes().data();
        std::memcpy(begin, header.data(), header.size());
        file_.emplace(gguf::File::parse(memory_->bytes(), model.name));
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            recipes_.push_back(synthetic_recipe(tensors[i], seed));
            const TensorView& view = file_->tensors()[i];
            if (view.type == DType::f32)
                fill_synthetic(recipes_[i], 0, view.elements(), begin + (view.data - begin));
        }
    }

    /// Its views live as long as this, through moves.
    const gguf::File& file() const { return *file_; }

    /// What bytes of a tensor are made of.
    struct Part {
        const SyntheticRecipe* recipe;
        std::uint64_t first, count;  ///< elements
    };
    /// The part of a tensor that begins at an address of the file. Throws gg::Error (internal) for bytes that
    /// are not whole blocks of one tensor.
    Part at(const std::byte* address, std::uint64_t bytes) const {
        for (std::size_t i = 0; i < recipes_.size(); ++i) {
            const TensorView& view = file_->tensors()[i];
            if (address < view.data || address >= view.data + view.bytes()) continue;
            const DTypeInfo& type = info(view.type);
            const auto offset = static_cast<std::uint64_t>(address - view.data);
            if (offset % type.bytes != 0 || bytes % type.bytes != 0 || bytes > view.bytes() - offset) break;
            return {&recipes_[i], offset / type.bytes * type.elements, bytes / type.bytes * type.elements};
        }
        throw Error(ErrorCode::internal, {.file = file_->name(),
                                          .field = "random weights",
                                          .expected = "whole blocks of one tensor",
                                          .found = std::to_string(bytes) + " others",
                                          .next_step = {}});
    }

  private:
    std::unique_ptr<detail::AddressSpace> memory_;
    std::optional<gguf::File> file_;
    std::vector<SyntheticRecipe> recipes_;
};

}  // namespace gg
