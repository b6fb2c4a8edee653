// Running a stage of gg on a GPU from a test.
#pragma once

#include "cuda/device.hpp"
#include "gg/cuda/launch.hpp"
#include "gg/cuda/warpgroup.cuh"

namespace cuda_test {

using gg::cuda::launch;

/// Launches a stage that has no plan of its own and waits for its end. `grid` is what gg::cuda::launch takes.
template <class Stage, class Grid>
void launch_and_wait(const Grid& grid, const typename Stage::Args& args) {
    launch<Stage>(grid, args);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
}

/// What the compiler says of a stage's kernel.
template <class Stage>
cudaFuncAttributes attributes_of() {
    cudaFuncAttributes attributes{};
    REQUIRE(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&gg::cuda::kernel<Stage>)) ==
            cudaSuccess);
    return attributes;
}

/// Checks that a block of a stage takes no more shared memory than its plan was given.
template <class Stage>
void check_shared_memory(int budget) {
    CHECK(static_cast<int>(attributes_of<Stage>().sharedSizeBytes) + Stage::plan.shared_bytes <= budget);
}

/// Says whether the code that the GPU at hand runs was compiled with products of warpgroups.
struct WarpgroupProbe {
    struct Args {
        int* found;
    };
    static constexpr int threads = 1, shared_bytes = 0;
    __device__ static void run(const Args& args) { *args.found = gg::cuda::has_warpgroups; }
};

/// Whether stages of warpgroups do anything here: not on other chips, and not in code for older ones.
inline bool runs_warpgroups() {
    const DeviceArray<int> found(std::vector<int>{0});
    launch_and_wait<WarpgroupProbe>(1, {found.data()});
    return found.read()[0] != 0;
}

}  // namespace cuda_test
