// Running a stage of gg on a GPU from a test.
#pragma once

#include <cuda_runtime.h>

#include "cuda/device.hpp"

namespace cuda_test {

/// A stage as a kernel.
template <class Stage>
__global__ void __launch_bounds__(Stage::plan.threads(), Stage::residency)
    kernel(const __grid_constant__ typename Stage::Args args) {
    Stage::run(args);
}

/// Whether the code of a kernel that runs here has the instructions of dependent launch: it is what the
/// kernel was compiled for that counts, not the GPU.
template <class Args>
bool has_dependent_launch(void (*function)(Args)) {
    cudaFuncAttributes attributes{};
    REQUIRE(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(function)) == cudaSuccess);
    return attributes.ptxVersion >= 90;
}

/// Launches any kernel of one argument; `dependent` lets it start before its predecessor ends, where its code
/// can wait for that.
template <class Args>
void launch_kernel(void (*function)(Args), int blocks, int threads, int shared_bytes, const Args& args,
                   cudaStream_t stream = nullptr, bool dependent = false) {
    REQUIRE(cudaFuncSetAttribute(reinterpret_cast<const void*>(function),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes) == cudaSuccess);
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = dependent && has_dependent_launch(function) ? 1 : 0;
    Args copy = args;
    void* arguments[] = {&copy};
    REQUIRE(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(function), arguments) == cudaSuccess);
}

/// Launches a stage as its plan says.
template <class Stage>
void launch(const typename Stage::Args& args, cudaStream_t stream = nullptr, bool dependent = false) {
    constexpr auto plan = Stage::plan;
    launch_kernel<typename Stage::Args>(&kernel<Stage>, plan.blocks, plan.threads(), plan.shared_bytes, args,
                                        stream, dependent);
}

/// Checks that a block of a stage takes no more shared memory than its plan was given.
template <class Stage>
void check_shared_memory(int budget) {
    cudaFuncAttributes attributes{};
    REQUIRE(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&kernel<Stage>)) == cudaSuccess);
    CHECK(static_cast<int>(attributes.sharedSizeBytes) + Stage::plan.shared_bytes <= budget);
}

}  // namespace cuda_test
