// Norm of many rows: FP32 x [rows][hidden] to an operand buffer of Norm(x), padding columns zero. One warp a
// row; lane l sums elements l, l + 32, ... and the lanes are added in a fixed order. The maths is the norm's
// own (rms_norm.hpp, layer_norm.hpp). A row of up to 6144 elements stays in registers from its statistics to
// its operand; many rows at once are more than the second-level cache holds, and would be read again.
//
// Bytes moved: a row in once, an operand row out; a longer row in twice or, with a mean, three times.
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

/// Of a row of `hidden` elements, in every lane of the warp that calls it. `value(k)` is this lane's element
/// k, lane + 32 k of the row.
template <class Norm, int hidden, class Value>
GG_DEVICE RowStatistics row_statistics(const Value& value, float epsilon) {
    constexpr int count = (hidden + warp_size - 1) / warp_size;
    constexpr bool whole = hidden % warp_size == 0;
    const int lane = threadIdx.x % warp_size;
    const auto exists = [&](int k) { return whole || k * warp_size + lane < hidden; };
    float mean = 0.0f;
    if constexpr (Norm::centred) {
        float sum = 0.0f;
#pragma unroll(Value::unrolled)
        for (int k = 0; k < count; ++k)
            if (exists(k)) sum += value(k);
        mean = warp_sum(sum) / static_cast<float>(hidden);
    }
    float squares = 0.0f;
#pragma unroll(Value::unrolled)
    for (int k = 0; k < count; ++k)
        if (exists(k)) {
            const float deviation = value(k) - mean;
            squares += deviation * deviation;
        }
    return {mean, Norm::scale(warp_sum(squares), hidden, epsilon)};
}

/// A lane's elements of a row in memory.
struct RowInMemory {
    static constexpr int unrolled = 8;
    const float* x;
    GG_DEVICE float operator()(int k) const { return load_cg(x + k * warp_size + threadIdx.x % warp_size); }
};

/// The same in registers.
template <int hidden>
struct RowInRegisters {
    static constexpr int unrolled = (hidden + warp_size - 1) / warp_size;
    float values[unrolled];

    GG_DEVICE explicit RowInRegisters(const float* x) {
        const int lane = threadIdx.x % warp_size;
#pragma unroll
        for (int k = 0; k < unrolled; ++k) {
            const int i = k * warp_size + lane;
            values[k] = i < hidden ? load_cg(x + i) : 0.0f;
        }
    }
    GG_DEVICE float operator()(int k) const {
        return values[k];
    }
};

/// Launched as norm_rows_launch(). Dims has hidden and norm_epsilon.
template <class Norm, class Dims, class Operand>
struct NormRows {
    using Args = NormArgs<Norm>;

    static constexpr int threads = norm_threads;
    static constexpr int shared_bytes = 0;
    static constexpr bool keeps = Dims::hidden <= 6144;  ///< whether a row fits into a warp's registers
    static constexpr int blocks = !keeps ? 8 : Dims::hidden <= 3072 ? 4 : 2;  ///< on a multiprocessor

    __device__ static void run(const Args& args) {
        launch_next();
        wait_for_previous();
        const int row = (blockIdx.x * threads + threadIdx.x) / warp_size;
        if (row >= args.rows) return;
        const float* x = args.x + static_cast<Size>(row) * hidden;
        unsigned short* out = args.operand + static_cast<Size>(row) * stride;
        if constexpr (keeps)
            norm(args, RowInRegisters<hidden>(x), out);
        else
            norm(args, RowInMemory{x}, out);
    }

  private:
    static constexpr int hidden = Dims::hidden, stride = operand_stride(Dims::hidden);

    /// Lanes 2n and 2n + 1 hold neighbours: of 64 elements, the even lane stores the pair of the first half
    /// and the odd one that of the second.
    template <class Row>
    GG_DEVICE static void norm(const Args& args, const Row& x, unsigned short* out) {
        const int lane = threadIdx.x % warp_size;
        const bool odd = lane % 2 != 0;
        const RowStatistics statistics = row_statistics<Norm, hidden>(x, Dims::norm_epsilon);
        const auto element = [&](int k) {
            const int i = k * warp_size + lane;
            return k * warp_size < hidden && i < hidden
                       ? Norm::template apply<CudaStore>(args.weights, i, x(k), statistics.mean,
                                                         statistics.scale)
                       : 0.0f;
        };
        constexpr int count = stride / warp_size,
                      batch = 8;  // weights of a batch are read before it is stored
        constexpr int unrolled = (Row::unrolled + batch - 1) / batch;
#pragma unroll(unrolled)
        for (int begin = 0; begin < count; begin += batch) {
            float y[batch];
#pragma unroll
            for (int j = 0; j < batch; ++j) y[j] = element(begin + j);
#pragma unroll
            for (int j = 0; j < batch; j += 2) {
                const int k = begin + j;
                const float other = __shfl_xor_sync(whole_warp, odd ? y[j] : y[j + 1], 1);
                if (k < count)
                    store_operand<Operand>(out, args.operand_plane,
                                           static_cast<Size>((odd ? k + 1 : k) * warp_size + lane / 2 * 2),
                                           odd ? other : y[j], odd ? y[j + 1] : other, args.overflows);
            }
        }
    }
};

}  // namespace gg::cuda
