// The GPUs of this machine, through the CUDA runtime. Linked statically it starts without a driver, so a
// program can say what is missing. Nothing here makes a context or allocates on a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gg/core/error.hpp"

namespace gg::cuda {

/// Throws cuda_error, or out_of_memory, that says what failed and why; does nothing on success.
inline void check(cudaError_t result, std::string_view what) {
    if (result == cudaSuccess) return;
    cudaGetLastError();  // the error is reported here; later calls must not report it again
    const auto code = result == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::cuda_error;
    throw Error(code, {.field = std::string(what),
                       .found = std::string(cudaGetErrorName(result)) + ", " + cudaGetErrorString(result)});
}

struct DeviceInfo {
    int index = 0;  ///< as cudaSetDevice takes it
    std::string name = {};
    int major = 0, minor = 0;  ///< compute capability
    int multiprocessors = 0;
    std::uint64_t total_bytes = 0;                  ///< device memory
    std::uint64_t shared_bytes = 0;                 ///< shared memory that one block may take
    std::uint64_t shared_multiprocessor_bytes = 0;  ///< shared memory of a multiprocessor
    std::uint64_t l2_bytes = 0;

    /// The name of its architecture, with the features that only this one has: "sm_90a".
    std::string architecture() const {
        const bool specific = minor == 0 && (major == 9 || major == 12);
        return "sm_" + std::to_string(major) + std::to_string(minor) + (specific ? "a" : "");
    }
    /// Whether gg has code for it.
    bool usable() const { return major >= 8; }
    /// For messages: "NVIDIA H100 (cuda:0)".
    std::string text() const { return name + " (cuda:" + std::to_string(index) + ")"; }
};

/// What is known about GPUs and their driver.
struct Devices {
    std::vector<DeviceInfo> usable;
    std::string problem = {};  ///< why none is usable; empty if one is
    std::string remedy = {};   ///< what to do about that: a sentence

    /// The device of that index. Throws invalid_request that names what there is, or the problem.
    const DeviceInfo& at(int index) const {
        std::string found;
        for (const DeviceInfo& device : usable) {
            if (device.index == index) return device;
            found += (found.empty() ? "" : ", ") + std::to_string(device.index) + " (" + device.name + ")";
        }
        throw Error(ErrorCode::invalid_request,
                    {.field = "CUDA device " + std::to_string(index),
                     .expected = usable.empty() ? "a usable GPU" : "one of " + found,
                     .found = usable.empty() ? problem : "no such device",
                     .next_step = remedy});
    }
};

namespace detail {

/// "13.0" of 13000.
inline std::string cuda_version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// The driver's own version as the kernel module tells it, "580.82.07"; empty if it does not.
inline std::string driver_module_version() {
    std::ifstream file("/proc/driver/nvidia/version");
    for (std::string word; file >> word;)
        if (word.find_first_not_of("0123456789.") == word.npos && word.find('.') != word.npos) return word;
    return {};
}

/// Why no device is usable. `driver` is the CUDA version that the driver knows (0: there is no driver),
/// `module` the version of its kernel module (empty: none), `runtime` that of the linked runtime, `result`
/// what counting the devices gave, `all` the devices.
inline Devices no_device(int driver, const std::string& module, int runtime, cudaError_t result,
                         const std::vector<DeviceInfo>& all) {
    // The first driver of each major version; newer toolkits of that version run on it too.
    const std::string needed = runtime >= 13000 ? "driver 580 or later" : "driver 525 or later";
    if (driver == 0 && module.empty())
        return {{}, "no NVIDIA driver is installed", "Install " + needed + "."};
    if (driver == 0)
        return {{},
                "the NVIDIA driver " + module + " is there, but its library libcuda.so.1 is not found",
                "Start a container with --gpus all; elsewhere install the driver's libraries."};
    if (result == cudaErrorInsufficientDriver)
        return {{},
                "the NVIDIA driver" + (module.empty() ? "" : " " + module) + " is too old: it knows CUDA " +
                    cuda_version_text(driver) + ", this program needs " + cuda_version_text(runtime),
                "Install " + needed + "."};
    if (result == cudaErrorNoDevice || (result == cudaSuccess && all.empty()))
        return {
            {}, "the NVIDIA driver sees no GPU", "Check CUDA_VISIBLE_DEVICES, and --gpus in a container."};
    if (result != cudaSuccess)
        return {{},
                std::string("the GPUs cannot be used: ") + cudaGetErrorName(result) + ", " +
                    cudaGetErrorString(result),
                "See if nvidia-smi shows them."};
    std::string names;
    for (const DeviceInfo& device : all)
        names += (names.empty() ? "" : ", ") + device.name + " (" + device.architecture() + ")";
    return {
        {}, "no GPU is new enough: found " + names, "Use a GPU of compute capability 8.0 (Ampere) or later."};
}

inline DeviceInfo device_info(int index) {
    cudaDeviceProp properties = {};
    check(cudaGetDeviceProperties(&properties, index),
          "reading the properties of CUDA device " + std::to_string(index));
    return {.index = index,
            .name = properties.name,
            .major = properties.major,
            .minor = properties.minor,
            .multiprocessors = properties.multiProcessorCount,
            .total_bytes = properties.totalGlobalMem,
            .shared_bytes = properties.sharedMemPerBlockOptin,
            .shared_multiprocessor_bytes = properties.sharedMemPerMultiprocessor,
            .l2_bytes = static_cast<std::uint64_t>(properties.l2CacheSize)};
}

}  // namespace detail

/// The GPUs that gg can use, or why there is none.
inline Devices find_devices() {
    int driver = 0, runtime = 0, count = 0;
    check(cudaRuntimeGetVersion(&runtime), "reading the version of the CUDA runtime");
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    const cudaError_t result = cudaGetDeviceCount(&count);
    if (result != cudaSuccess) cudaGetLastError();
    std::vector<DeviceInfo> all;
    for (int i = 0; result == cudaSuccess && i < count; ++i) all.push_back(detail::device_info(i));
    Devices devices;
    for (const DeviceInfo& device : all)
        if (device.usable()) devices.usable.push_back(device);
    if (!devices.usable.empty()) return devices;
    return detail::no_device(driver, detail::driver_module_version(), runtime, result, all);
}

}  // namespace gg::cuda
