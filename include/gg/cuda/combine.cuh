// What a mixture of experts adds to the residual: x[row] += sum over ranks, in rank order, of weight times
// y[place], where y is the experts' output sorted by expert (expert_sort.cuh), its bias included. FP32.
//
// Bytes moved: used rows of y and one of x in, one of x out.
#pragma once

#include "gg/cuda/prefill_args.hpp"
#include "gg/cuda/prefill_plan.hpp"
#include "gg/cuda/primitives.cuh"

namespace gg::cuda {

/// Launched as combine_launch(). Dims has hidden and experts_used.
template <class Dims>
struct CombineExperts {
    using Args = CombineArgs;

    static constexpr int threads = combine_threads;
    static constexpr int shared_bytes = 0;

    __device__ static void run(const Args& args) {
        launch_next();
        wait_for_previous();
        const Size row = blockIdx.x;
        const float* y[used];
        float weight[used];
#pragma unroll
        for (int rank = 0; rank < used; ++rank) {
            y[rank] = args.y + static_cast<Size>(load_cg(args.place + row * used + rank)) * hidden;
            weight[rank] = load_cg(args.weight + row * used + rank);
        }
        float* x = args.x + row * hidden;
#pragma unroll 4
        for (int i = threadIdx.x; i < hidden; i += threads) {
            float sum = 0.0f;
#pragma unroll
            for (int rank = 0; rank < used; ++rank) sum += weight[rank] * load_cg(y[rank] + i);
            x[i] = load_cg(x + i) + sum;
        }
    }

  private:
    static constexpr int hidden = Dims::hidden, used = Dims::experts_used;
};

}  // namespace gg::cuda
