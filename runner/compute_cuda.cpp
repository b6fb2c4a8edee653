// The only file of the runner, beside compile.cpp, that includes the CUDA backend.
#include "compute_cuda.hpp"

#if defined(GG_WITH_CUDA)
#include "gg/cuda/gpu_backend.hpp"
#endif

namespace gg::runner {

#if defined(GG_WITH_CUDA)

GpuBackend gpu_backend(std::uint64_t memory_limit) {
    return cuda::gpu_backend({.memory_limit = memory_limit});
}

std::optional<GpuDescription> describe_gpu() {
    try {
        const cuda::Devices devices = cuda::find_devices();
        if (devices.usable.empty()) return {};
        const cuda::DeviceInfo& device = devices.usable.front();
        return GpuDescription{device.name, device.total_bytes, device.architecture(), device.multiprocessors};
    } catch (const Error&) {
        return {};
    }
}

#else

GpuBackend gpu_backend(std::uint64_t) {
    return {};
}

std::optional<GpuDescription> describe_gpu() {
    return {};
}

#endif

}  // namespace gg::runner
