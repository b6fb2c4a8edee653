// Loads a model of any family that gg knows onto a GPU.
#pragma once

#include <memory>

#include "gg/cuda/model.hpp"

namespace gg::cuda {

/// Compiles the model's kernels, or finds them in the cache, and brings its weights to the device. The file
/// must outlive the model. Throws gg::Error: invalid_request for a device that is not there,
/// model_load_failed for a file that does not fit, cuda_error for a compiler or driver that does not serve,
/// out_of_memory.
inline std::unique_ptr<Model> load_model(const gguf::File& file, const LoadOptions& options) {
    const DeviceInfo device = find_devices().at(options.device);
    return with_family(file, [&](auto family) -> std::unique_ptr<Model> {
        return std::make_unique<CudaModel<decltype(family)>>(file, options, device);
    });
}

}  // namespace gg::cuda
