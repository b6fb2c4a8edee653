// Loads a model of any family that gg knows onto the host.
#pragma once

#include "gg/host/model.hpp"

namespace gg::host {

/// Binds the file's tensors to the family's layer type; the file must outlive the model. Throws gg::Error
/// model_load_failed if architecture, keys or tensors do not fit.
inline std::unique_ptr<Model> load_model(const gguf::File& file, const LoadOptions& options = {}) {
    return with_family(file, [&](auto family) -> std::unique_ptr<Model> {
        return std::make_unique<HostModel<decltype(family)>>(file, options, best_instruction_set());
    });
}

}  // namespace gg::host
