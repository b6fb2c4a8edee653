// What a stage that begins with a norm does first: every block adds up the residual stream's partial sums and
// norms all rows into its own shared memory, as operand of its product.
//
//   x_i = sum over slots of partial[slot][row][i], in slot order;  y = norm(x)
//
// The stream is float32 [slots][rows][hidden]; stage outputs are left as such sums (plan.hpp). Bytes moved by
// a block: slots * rows * hidden * 4, out of the second-level cache.
#pragma once

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

/// Norms `rows` rows of Dims::hidden with `warps` warps.
/// What a stage does meanwhile: nothing.
struct NormAlone {
    /// By all threads, when the rows are on their way and before any barrier.
    GG_DEVICE void loading() const {}
    /// By a row's first warp, when the row's factor is known and what loading() left in shared memory is
    /// seen.
    GG_DEVICE void scaled(int /*row*/, float /*scale*/) const {}
};

template <class Dims, class Norm, class Operand, int rows, int warps, int max_slots>
struct ResidualNorm {
    using Activations = SharedActivations<Operand, rows, Dims::hidden>;
    using Weights = typename Norm::template Weights<CudaStore>;

    static constexpr int row_warps = warps / rows > 0 ? warps / rows : 1;  ///< that share a row
    static_assert(row_warps == 1 || warps % rows == 0, "rows share the warps evenly");
    static constexpr int row_threads = row_warps * warp_size;
    static constexpr int passes = (rows * row_warps + warps - 1) / warps;
    static constexpr int pairs = (Dims::hidden + 1) / 2;
    static constexpr int thread_pairs = (pairs + row_threads - 1) / row_threads;
    static constexpr bool keeps = thread_pairs <= 8;  ///< whether a thread's elements fit into registers

    struct Shared {
        float partial[warps];
        float scale[rows];  ///< each row's factor, for what is linear in the normed row
    };

    /// Writes operands to `out` [planes][rows][stride]; ends with a barrier. Rows from `used_rows` on are
    /// left.
    template <class Meanwhile = NormAlone>
    GG_DEVICE static void run(const ResidualStream& x, int used_rows, const Weights& weights, Shared& shared,
                              unsigned short* out, int* overflows, const Meanwhile& meanwhile = {}) {
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
        const int thread = static_cast<int>(threadIdx.x) % row_threads;
#pragma unroll 1
        for (int pass = 0; pass < passes; ++pass) {
            const int row = (pass * warps + warp) / row_warps;
            const bool live = row < used_rows;
            float low[keeps ? thread_pairs : 1] = {}, high[keeps ? thread_pairs : 1] = {};
            auto value = [&](int k, int i) {
                return Pair{keeps ? low[k] : read(x, row, i, i), keeps ? high[k] : read(x, row, i, i + 1)};
            };
            if constexpr (keeps)
                for_each_pair(thread, live, [&](int k, int i) {
                    low[k] = read(x, row, i, i);
                    high[k] = read(x, row, i, i + 1);
                });
            if (pass == 0) meanwhile.loading();
            if constexpr (row_warps == 1) __syncthreads();
            float mean = 0.0f;
            if constexpr (Norm::centred) {
                float sum = 0.0f;
                for_each_pair(thread, live, [&](int k, int i) {
                    const Pair v = value(k, i);
                    sum += v.low + v.high;
                });
                mean = row_sum(sum, shared) / static_cast<float>(Dims::hidden);
            }
            float squares = 0.0f;
            for_each_pair(thread, live, [&](int k, int i) {
                const Pair v = value(k, i);
                const float a = v.low - mean, b = i + 1 < Dims::hidden ? v.high - mean : 0.0f;
                squares += a * a + b * b;
            });
            const float scale = Norm::scale(row_sum(squares, shared), Dims::hidden, Dims::norm_epsilon);
            if (live && thread == 0) shared.scale[row] = scale;
            if (live && thread < warp_size) meanwhile.scaled(row, scale);
            unsigned short* to = out + row * Activations::stride;
            for_each_pair(thread, live, [&](int k, int i) {
                const Pair v = value(k, i);
                const float a = Norm::apply(weights, i, v.low, mean, scale);
                const float b =
                    i + 1 < Dims::hidden ? Norm::apply(weights, i + 1, v.high, mean, scale) : 0.0f;
                store_operand<Operand>(to, Activations::plane, Size(i), a, b, overflows);
            });
            if (live)
                for (int i = 2 * (pairs + thread); i < operand_stride(Dims::hidden); i += 2 * row_threads)
                    store_operand<Operand>(to, Activations::plane, Size(i), 0.0f, 0.0f, overflows);
        }
        __syncthreads();
    }

  private:
    struct Pair {
        float low, high;
    };

    GG_DEVICE static float read(const ResidualStream& x, int row, int, int i) {
        return i < Dims::hidden ? residual_value<Dims::hidden, rows, max_slots>(x, row, i) : 0.0f;
    }

    template <class F>
    GG_DEVICE static void for_each_pair(int thread, bool live, const F& f) {
        if (!live) return;
        if constexpr (keeps) {
#pragma unroll
            for (int k = 0; k < thread_pairs; ++k)
                if (const int pair = k * row_threads + thread; pair < pairs) f(k, 2 * pair);
        } else {
#pragma unroll 2
            for (int pair = thread; pair < pairs; pair += row_threads) f(0, 2 * pair);
        }
    }

    /// The sum over a row's threads, in every one of them. All threads of the block call it.
    GG_DEVICE static float row_sum(float value, Shared& shared) {
        value = warp_sum(value);
        if constexpr (row_warps == 1) return value;
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
        __syncthreads();
        if (threadIdx.x % warp_size == 0) shared.partial[warp] = value;
        __syncthreads();
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < row_warps; ++w) sum += shared.partial[warp / row_warps * row_warps + w];
        return sum;
    }
};

}  // namespace gg::cuda
