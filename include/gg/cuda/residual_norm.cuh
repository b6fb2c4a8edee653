// What a stage that begins with a norm does first: every block adds up the residual stream's partial sums and
// norms all rows into its own shared memory, as operand of its product.
//
//   x_i = sum over slots of partial[slot][row][i], in slot order;  y = norm(x)
//
// The stream is float32 [slots][rows][hidden]; stage outputs are left as such sums (plan.hpp). Bytes moved by
// a block: slots * rows * hidden * 4, out of the second-level cache.
#pragma once

#include "gg/cuda/activations.cuh"
#include "gg/cuda/matvec.cuh"
#include "gg/cuda/stage_args.hpp"

namespace gg::cuda {

/// x of one row and element. All slots are asked for at once.
template <int hidden, int rows, int max_slots>
GG_DEVICE float residual_value(const ResidualStream& stream, int row, int i) {
    float part[max_slots];
#pragma unroll
    for (int q = 0; q < max_slots; ++q)
        part[q] = q < stream.slots ? load_cg(stream.data + (Size(q) * rows + row) * hidden + i) : 0.0f;
    float sum = part[0];
#pragma unroll
    for (int q = 1; q < max_slots; ++q)
        if (q < stream.slots) sum += part[q];
    return sum;
}

/// x of elements i and i + 1, i even; what is beyond the row is 0.
template <int hidden, int rows, int max_slots>
GG_DEVICE float2 residual_pair(const ResidualStream& stream, int row, int i) {
    if constexpr (hidden % 2 != 0) {
        return {residual_value<hidden, rows, max_slots>(stream, row, i),
                i + 1 < hidden ? residual_value<hidden, rows, max_slots>(stream, row, i + 1) : 0.0f};
    } else {
        float2 part[max_slots];
#pragma unroll
        for (int q = 0; q < max_slots; ++q)
            if (q < stream.slots)
                part[q] = load_cg(
                    reinterpret_cast<const float2*>(stream.data + (Size(q) * rows + row) * hidden + i));
        float2 sum = part[0];
#pragma unroll
        for (int q = 1; q < max_slots; ++q)
            if (q < stream.slots) sum = {sum.x + part[q].x, sum.y + part[q].y};
        return sum;
    }
}

/// What a stage does while rows are normed: nothing.
struct NormAlone {
    /// By all threads, when the rows are on their way and before any barrier.
    GG_DEVICE void loading() const {}
    /// By a row's first warp, when the row's factor is known and what loading() left in shared memory is
    /// seen.
    GG_DEVICE void scaled(int /*row*/, float /*scale*/) const {}
};

/// Norms `rows` rows of Dims::hidden with `warps` warps. Made before the wait, so that the norm's own weights
/// are at hand when the rows come.
template <class Dims, class Norm, class Operand, int rows, int warps, int max_slots>
class ResidualNorm {
  public:
    using Activations = SharedActivations<Operand, rows, Dims::hidden>;
    using Weights = typename Norm::template Weights<CudaStore>;
    using Element = typename Norm::Element;

    static constexpr int row_warps = warps / rows > 0 ? warps / rows : 1;  ///< that share a row
    static_assert(row_warps == 1 || warps % rows == 0, "rows share the warps evenly");
    static constexpr int row_threads = row_warps * warp_size;
    static constexpr int passes = (rows * row_warps + warps - 1) / warps;
    static constexpr int pairs = (Dims::hidden + 1) / 2;
    static constexpr int thread_pairs = (pairs + row_threads - 1) / row_threads;
    static constexpr bool keeps = thread_pairs <= 8;  ///< whether a thread's elements fit into registers
    static constexpr bool keeps_weights = thread_pairs <= 4;  ///< and their weights

    struct Shared {
        float partial[2][warps];
        float scale[rows];  ///< each row's factor, for what is linear in the normed row
    };

    GG_DEVICE explicit ResidualNorm(const Weights& weights)
        : weights_(weights), thread_(static_cast<int>(threadIdx.x) % row_threads) {
        if constexpr (keeps_weights) for_each_pair(true, [&](int k, int i) { elements_[k] = elements(i); });
    }

    /// Writes operands to `out` [planes][rows][stride]; ends with a barrier. Rows from `used_rows` on are
    /// left.
    template <class Meanwhile = NormAlone>
    GG_DEVICE void run(const ResidualStream& x, int used_rows, Shared& shared, unsigned short* out,
                       int* overflows, const Meanwhile& meanwhile = {}) {
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
#pragma unroll 1
        for (int pass = 0; pass < passes; ++pass) {
            const int row = (pass * warps + warp) / row_warps;
            const bool live = row < used_rows;
            float2 kept[keeps ? thread_pairs : 1] = {};
            const auto value = [&](int k, int i) {
                return keeps ? kept[k] : residual_pair<Dims::hidden, rows, max_slots>(x, row, i);
            };
            if constexpr (keeps)
                for_each_pair(live, [&](int k, int i) {
                    kept[k] = residual_pair<Dims::hidden, rows, max_slots>(x, row, i);
                });
            if (pass == 0) meanwhile.loading();
            if constexpr (row_warps == 1) __syncthreads();
            float mean = 0.0f;
            if constexpr (Norm::centred) {
                float sum = 0.0f;
                for_each_pair(live, [&](int k, int i) {
                    const float2 v = value(k, i);
                    sum += v.x + v.y;
                });
                mean = row_sum(sum, shared.partial[0]) / static_cast<float>(Dims::hidden);
            }
            float squares = 0.0f;
            for_each_pair(live, [&](int k, int i) {
                const float2 v = value(k, i);
                const float a = v.x - mean, b = i + 1 < Dims::hidden ? v.y - mean : 0.0f;
                squares += a * a + b * b;
            });
            const float scale =
                Norm::scale(row_sum(squares, shared.partial[1]), Dims::hidden, Dims::norm_epsilon);
            if (live && thread_ == 0) shared.scale[row] = scale;
            if (live && thread_ < warp_size) meanwhile.scaled(row, scale);
            unsigned short* to = out + row * Activations::stride;
            for_each_pair(live, [&](int k, int i) {
                const float2 v = value(k, i);
                const Pair weights = keeps_weights ? elements_[k] : elements(i);
                const float a = Norm::apply(weights.low, v.x, mean, scale);
                const float b = i + 1 < Dims::hidden ? Norm::apply(weights.high, v.y, mean, scale) : 0.0f;
                store_operand<Operand>(to, Activations::plane, Size(i), a, b, overflows);
            });
            if (live)
                for (int i = 2 * (pairs + thread_); i < operand_stride(Dims::hidden); i += 2 * row_threads)
                    store_operand<Operand>(to, Activations::plane, Size(i), 0.0f, 0.0f, overflows);
        }
        __syncthreads();
    }

  private:
    struct Pair {
        Element low, high;
    };

    const Weights& weights_;
    int thread_;
    Pair elements_[keeps_weights ? thread_pairs : 1];

    GG_DEVICE Pair elements(int i) const {
        const Element low = Norm::element(weights_, i);
        return {low, i + 1 < Dims::hidden ? Norm::element(weights_, i + 1) : low};
    }

    template <class F>
    GG_DEVICE void for_each_pair(bool live, const F& f) const {
        if (!live) return;
        if constexpr (keeps) {
#pragma unroll
            for (int k = 0; k < thread_pairs; ++k)
                if (const int pair = k * row_threads + thread_; pair < pairs) f(k, 2 * pair);
        } else {
#pragma unroll 2
            for (int pair = thread_; pair < pairs; pair += row_threads) f(0, 2 * pair);
        }
    }

    /// The sum over a row's threads, in every one of them. All threads of the block call it, with `partial`
    /// [warps] of its own.
    GG_DEVICE static float row_sum(float value, float* partial) {
        value = warp_sum(value);
        if constexpr (row_warps == 1) return value;
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
        if (threadIdx.x % warp_size == 0) partial[warp] = value;
        __syncthreads();
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < row_warps; ++w) sum += partial[warp / row_warps * row_warps + w];
        return sum;
    }
};

}  // namespace gg::cuda
