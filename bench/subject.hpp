// What a bench program measures: a preset of random weights, or a file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "gg/model/synthesize.hpp"

namespace gg::bench {

/// A model to measure: a preset, or a file.
struct Subject {
    std::string name;
    std::optional<SyntheticFile> synthetic;
    std::optional<gguf::File> opened;

    const gguf::File& file() const { return synthetic ? synthetic->file() : *opened; }

    /// A preset, its experts in another type unless `experts` is empty.
    static Subject preset(const std::string& preset, const std::string& experts = {}) {
        return with_synthetic_preset(preset, [&](auto family, SyntheticModel model) -> Subject {
            std::string name = preset;
            if (!experts.empty()) {
                if (model.dims.experts == 0)
                    throw Error(ErrorCode::invalid_request, {.file = {},
                                                             .field = "--experts",
                                                             .expected = "a preset with experts",
                                                             .found = preset,
                                                             .next_step = {}});
                model.experts = find_dtype(experts)->type;
                name.append(", ").append(experts).append(" experts");
            }
            return {name, SyntheticFile(family, model, 1), {}};
        });
    }
    static Subject of_file(const std::string& path) {
        return {std::filesystem::path(path).stem().string(), {}, gguf::File::open(path)};
    }
};

}  // namespace gg::bench
