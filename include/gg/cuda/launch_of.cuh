// What the source text of a model's kernels (source.hpp) needs besides the stages: how a stage is launched,
// and the kernel around it.
#pragma once

#include "gg/cuda/primitives.cuh"
#include "gg/cuda/stage_args.hpp"
#include "gg/cuda/stamps.hpp"

#if defined(GG_STAMPS)
extern "C" {
__device__ gg::cuda::StampLog gg_stamp_log;
}
#endif

namespace gg::cuda {

/// A stage's launch. Stages whose grid depends on the step have 0 blocks here.
template <class Stage>
GG_HD constexpr Launch launch_of() {
    if constexpr (requires { Stage::plan; })
        return {Stage::plan.blocks, Stage::plan.threads(), Stage::plan.shared_bytes, Stage::plan.slots};
    else
        return {0, Stage::threads, Stage::shared_bytes, 0};
}

/// Blocks that a multiprocessor should hold, for launch bounds.
template <class Stage>
GG_HD constexpr int residency_of() {
    if constexpr (requires { Stage::residency; })
        return Stage::residency;
    else if constexpr (requires { Stage::blocks; })
        return Stage::blocks;
    else
        return 1;
}

/// Runs a stage; kernel `number` of its unit.
template <class Stage>
GG_DEVICE void run_stage([[maybe_unused]] unsigned number, const typename Stage::Args& args) {
#if defined(GG_STAMPS)
    if (threadIdx.x < moments) moment_times()[threadIdx.x] = 0;
    __syncthreads();
    const Size begin = global_time();
    Stage::run(args);
    __syncthreads();
    if (threadIdx.x != 0 || !gg_stamp_log.stamps) return;
    const Size end = global_time();
    const unsigned n = atomicAdd(gg_stamp_log.count, 1u);
    if (n >= gg_stamp_log.capacity) return;
    Stamp stamp = {gg_stamp_log.unit * stamped_kernels + number,
                   blockIdx.x + gridDim.x * blockIdx.y,
                   multiprocessor(),
                   0,
                   begin,
                   end,
                   {}};
#pragma unroll
    for (int m = 0; m < moments; ++m) stamp.at[m] = moment_times()[m];
    gg_stamp_log.stamps[n] = stamp;
#else
    Stage::run(args);
#endif
}

/// The largest of several numbers.
template <class... Ints>
GG_HD constexpr int largest(int first, Ints... rest) {
    ((first = rest > first ? rest : first), ...);
    return first;
}

}  // namespace gg::cuda
