// Launching stages from a program that nvcc compiles: the kernel around a stage, and its launch.
//
//   launch<HeadStage<...>>(args, stream);                            // the plan says grid and block
//   launch<Repack<format::F16>>(repack_blocks(args), args, stream);  // other stages: the grid comes first
//   launch<NormRows<...>>(norm_rows_launch(rows), args, stream);     // or the whole shape, prefill_plan.hpp
//
// Grids are constant expressions over values: prefill_plan.hpp for prefill's stages, attention_args.hpp for
// attention, repack_args.hpp and sampler_args.hpp for theirs; plan.hpp has what a stage with a plan of its
// own was given. All need only numbers, so a host program can compute them too.
//
// A launch returns at once; nothing is allocated on the device and nothing synchronised. What a kernel needs
// once for each device (its code loaded, its limit of shared memory raised) is done by its first launch
// there, or by prepare, which a program that captures graphs calls before. Errors are gg::Error: cuda_error
// with the stage's name, invalid_request for a shape that is another stage's.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "gg/cuda/device.hpp"
#include "gg/cuda/launch_of.cuh"
#include "gg/cuda/module.hpp"
#include "gg/cuda/prefill_plan.hpp"

namespace gg::cuda {

/// A stage as a kernel.
template <class Stage>
__global__ void __launch_bounds__(launch_of<Stage>().threads, residency_of<Stage>())
    kernel(const __grid_constant__ typename Stage::Args args) {
    Stage::run(args);
}

/// A stage whose grid is part of its type.
template <class Stage>
concept PlannedStage = requires {
    Stage::plan.blocks;
};

/// A stage whose grid depends on what it is given.
template <class Stage>
concept GridStage = !PlannedStage<Stage>;

struct LaunchOptions {
    /// The kernel may start before the one before it in the stream has ended, and waits for that one's end
    /// itself, as all of gg's stages do but Repack. What it reads before it waits (weights, in a stage with
    /// a plan) must have been there when that one started. Has no effect in code for chips before sm_90.
    bool early = false;
};

namespace detail {

/// The one kernel of a stage in a program.
template <class Stage>
class StageKernel {
  public:
    static StageKernel& get() {
        static StageKernel kernel;
        return kernel;
    }

    /// Readies the kernel for the current device if it is not yet; returns whether its code there can wait
    /// for the kernel before it.
    bool prepare() {
        int device = 0;
        check(cudaGetDevice(&device), "finding the current CUDA device");
        const std::uint64_t bit = device < 64 ? std::uint64_t{1} << device : 0;  // no bit: every time
        if (prepared_.load(std::memory_order_acquire) & bit) return (waiting_.load() & bit) != 0;
        cudaFuncAttributes attributes = {};
        check(cudaFuncGetAttributes(&attributes, entry()), "loading the kernel of " + kernel_.name());
        kernel_.prepare();
        const bool waits = attributes.ptxVersion >= 90;
        if (waits) waiting_.fetch_or(bit);
        prepared_.fetch_or(bit, std::memory_order_release);
        return waits;
    }

    void launch(dim3 grid, const typename Stage::Args& args, cudaStream_t stream, LaunchOptions options) {
        const bool waits = prepare();
        kernel_.launch(grid, static_cast<unsigned>(launch_of<Stage>().threads), stream, args,
                       options.early && waits);
    }

    static std::string name() {
        const std::string_view text = __PRETTY_FUNCTION__;  // "... [with Stage = NAME; ...]"
        const std::size_t begin = text.find("Stage = ") + 8;
        return std::string(text.substr(begin, text.find_first_of(";]", begin) - begin));
    }

  private:
    StageKernel() : kernel_(entry(), name(), static_cast<std::size_t>(launch_of<Stage>().shared_bytes)) {}
    static const void* entry() { return reinterpret_cast<const void*>(&cuda::kernel<Stage>); }

    Kernel kernel_;
    std::atomic<std::uint64_t> prepared_{0}, waiting_{0};  ///< devices, a bit each
};

}  // namespace detail

/// Does for the current device what else the stage's first launch there does.
template <class Stage>
void prepare() {
    detail::StageKernel<Stage>::get().prepare();
}

/// Enqueues a stage as its plan says.
template <PlannedStage Stage>
void launch(const typename Stage::Args& args, cudaStream_t stream = nullptr, LaunchOptions options = {}) {
    detail::StageKernel<Stage>::get().launch(dim3(static_cast<unsigned>(Stage::plan.blocks)), args, stream,
                                             options);
}

/// Enqueues a stage on a grid.
template <GridStage Stage>
void launch(dim3 grid, const typename Stage::Args& args, cudaStream_t stream = nullptr,
            LaunchOptions options = {}) {
    detail::StageKernel<Stage>::get().launch(grid, args, stream, options);
}

/// The same with a shape computed for it.
template <GridStage Stage>
void launch(const LaunchShape& shape, const typename Stage::Args& args, cudaStream_t stream = nullptr,
            LaunchOptions options = {}) {
    if (shape.threads != Stage::threads || shape.shared_bytes != Stage::shared_bytes)
        throw Error(ErrorCode::invalid_request,
                    {.field = detail::StageKernel<Stage>::name(),
                     .expected = std::to_string(Stage::threads) + " threads and " +
                                 std::to_string(Stage::shared_bytes) + " bytes of shared memory",
                     .found = std::to_string(shape.threads) + " and " + std::to_string(shape.shared_bytes)});
    launch<Stage>(dim3(static_cast<unsigned>(shape.blocks_x), static_cast<unsigned>(shape.blocks_y)), args,
                  stream, options);
}

}  // namespace gg::cuda
