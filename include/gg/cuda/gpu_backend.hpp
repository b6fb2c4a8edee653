// The CUDA backend for gg::Inference and gg::choose_device. Including it compiles the whole backend: do so in
// one file of a program, and link the CMake target gg::cuda.
#pragma once

#include <utility>

#include "gg/cuda/device_headers.hpp"
#include "gg/cuda/load.hpp"
#include "gg/model/device_choice.hpp"

namespace gg::cuda {

/// GpuBackend::find.
inline GpuSearch find_gpu(std::optional<int> wanted) {
    try {
        const Devices devices = find_devices();
        if (devices.usable.empty()) return {.problem = devices.problem, .remedy = devices.remedy};
        return {.gpu = wanted ? devices.at(*wanted).index : devices.usable.front().index};
    } catch (const Error& error) {
        return {.problem = error.what()};
    }
}

/// The backend. Of `options` it takes what is special to GPUs; device, threads, progress and note come when a
/// model is loaded, and the headers are the program's unless they are given.
inline GpuBackend gpu_backend(LoadOptions options = {}) {
    if (options.headers.empty()) options.headers = device_headers();
    return {.find = find_gpu,
            .load = [options = std::move(options)](const gguf::File& file, int gpu,
                                                   const gg::LoadOptions& loading) {
                LoadOptions all = options;
                all.device = gpu;
                all.threads = loading.threads;
                all.progress = loading.progress;
                all.note = loading.note;
                return load_model(file, all);
            }};
}

}  // namespace gg::cuda
