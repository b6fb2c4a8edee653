// Norm of many rows: FP32 x [rows][hidden] to an operand buffer of Norm(x), padding columns zero. One warp a
// row; lane l sums elements l, l + 32, ... and the lanes are added in a fixed order. The maths is the norm's
// own (rms_norm.hpp, layer_norm.hpp).
//
// Bytes moved: a row in twice or, with a mean, three times (from the second-level cache after the first), an
// operand row out.
#pragma once

#include "gg/cuda/operand.cuh"
#include "gg/cuda/prefill_args.hpp"
#include "gg/cuda/prefill_plan.hpp"
#include "gg/cuda/store.hpp"

namespace gg::cuda {

/// What a norm needs of a row besides its elements.
struct RowStatistics {
    float mean, scale;
};

/// Of a row x [hidden], in every lane of the warp that calls it.
template <class Norm, int hidden>
GG_DEVICE RowStatistics row_statistics(const float* x, float epsilon) {
    const int lane = threadIdx.x % warp_size;
    float mean = 0.0f;
    if constexpr (Norm::centred) {
        float sum = 0.0f;
#pragma unroll 8
        for (int i = lane; i < hidden; i += warp_size) sum += load_cg(x + i);
        mean = warp_sum(sum) / static_cast<float>(hidden);
    }
    float squares = 0.0f;
#pragma unroll 8
    for (int i = lane; i < hidden; i += warp_size) {
        const float deviation = load_cg(x + i) - mean;
        squares += deviation * deviation;
    }
    return {mean, Norm::scale(warp_sum(squares), hidden, epsilon)};
}

/// Launched as norm_rows_launch(). Dims has hidden and norm_epsilon.
template <class Norm, class Dims, class Operand>
struct NormRows {
    using Args = NormArgs<Norm>;

    static constexpr int threads = norm_threads;
    static constexpr int shared_bytes = 0;

    __device__ static void run(const Args& args) {
        launch_next();
        wait_for_previous();
        const int row = (blockIdx.x * threads + threadIdx.x) / warp_size, lane = threadIdx.x % warp_size;
        if (row >= args.rows) return;
        const float* x = args.x + static_cast<Size>(row) * hidden;
        const RowStatistics statistics = row_statistics<Norm, hidden>(x, Dims::norm_epsilon);
        const auto element = [&](int i) {
            return i < hidden ? Norm::template apply<CudaStore>(args.weights, i, load_cg(x + i),
                                                                statistics.mean, statistics.scale)
                              : 0.0f;
        };
#pragma unroll 4
        for (int i = 2 * lane; i < stride; i += 2 * warp_size)
            store_operand<Operand>(args.operand, args.operand_plane, static_cast<Size>(row) * stride + i,
                                   element(i), element(i + 1), args.overflows);
    }

  private:
    static constexpr int hidden = Dims::hidden, stride = operand_stride(Dims::hidden);
};

}  // namespace gg::cuda
