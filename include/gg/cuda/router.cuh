// Routing of many rows: logits = W Norm(x) + bias in FP32 throughout, then the `used` largest with their
// softmax as TopKRouter::select has it: descending, ties to the lower index, a NaN after every number.
//
// A block takes 16 rows and, for 32 experts at a time, 256 columns after another: the router's weights and
// the normed rows pass through shared memory, a lane sums 4 experts x 4 rows over its warp's 32 of the 256
// columns, and the 8 warps' sums are added in order. Rows there are 260 floats long, so that 8 lanes that
// read 16 bytes of 8 neighbouring rows meet all banks. Then one warp a row picks the experts.
//
// Bytes moved, from the second-level cache: x once for 32 experts and W once for 16 rows.
#pragma once

#include "gg/block/router.hpp"
#include "gg/cuda/norm_rows.cuh"

namespace gg::cuda {

/// Launched as router_launch(). Dims has hidden, norm_epsilon, experts (at most 256) and experts_used (at
/// most 8).
template <class Norm, class Dims>
struct Router {
    using Args = RouterArgs<Norm>;

    static constexpr int threads = router_threads;
    static constexpr int blocks = 2;  ///< on a multiprocessor
    static constexpr int shared_bytes = router_shared_bytes(Dims::experts);

    __device__ static void run(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        float* weights = reinterpret_cast<float*>(shared);  // [32 experts][pitch]
        float* normed = weights + router_experts * pitch;   // [16 rows][pitch]
        float* statistics = normed + router_rows * pitch;   // [16 rows] of mean and scale
        float* logits = statistics + 2 * router_rows;       // [16 rows][experts]
        launch_next();
        wait_for_previous();
        const int first_row = blockIdx.x * router_rows;
        const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
        for (int r = warp; r < router_rows; r += warps) {
            if (first_row + r >= args.rows) break;
            const RowStatistics s = row_statistics<Norm, hidden>(
                args.x + static_cast<Size>(first_row + r) * hidden, Dims::norm_epsilon);
            if (lane == 0) {
                statistics[2 * r] = s.mean;
                statistics[2 * r + 1] = s.scale;
            }
        }
        __syncthreads();
        for (int first = 0; first < experts; first += router_experts) {
            float sums[4][4] = {};  // [expert lane % 8 + 8 i][row lane / 8 + 4 j]
            for (int column = 0; column < hidden; column += router_columns) {
                stage(args, first_row, first, column, weights, normed, statistics);
                __syncthreads();
                multiply(weights, normed, warp, lane, sums);
                __syncthreads();
            }
            // The stage's memory takes the warps' sums [8][32 experts][16 rows].
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    weights[(warp * router_experts + lane % 8 + 8 * i) * router_rows + lane / 8 + 4 * j] =
                        sums[i][j];
            __syncthreads();
            for (int n = threadIdx.x; n < router_experts * router_rows; n += threads) {
                const int e = first + n / router_rows, r = n % router_rows;
                float sum = 0.0f;
#pragma unroll
                for (int w = 0; w < warps; ++w) sum += weights[w * router_experts * router_rows + n];
                if (e < experts) logits[r * experts + e] = sum + (args.bias ? args.bias[e] : 0.0f);
            }
            __syncthreads();
        }
        for (int r = warp; r < router_rows; r += warps)
            if (first_row + r < args.rows)
                select(logits + r * experts, lane, args.expert + static_cast<Size>(first_row + r) * used,
                       args.weight + static_cast<Size>(first_row + r) * used);
    }

  private:
    static constexpr int hidden = Dims::hidden, experts = Dims::experts, used = Dims::experts_used;
    static constexpr int warps = threads / 32;
    static constexpr int pitch = router_columns + 4;
    static_assert(experts <= 256 && used <= 8 && used <= experts);
    static_assert(warps * router_experts * router_rows <= (router_experts + router_rows) * pitch);
    static_assert(router_columns == warps * 32 && router_experts == 32 && router_rows == 16);

    /// Brings columns `column` to `column + 255` of 32 experts and 16 normed rows; what does not exist is 0.
    GG_DEVICE static void stage(const Args& args, int first_row, int first_expert, int column, float* weights,
                                float* normed, const float* statistics) {
        const int c = threadIdx.x % router_columns;
        const bool inside = column + c < hidden;
#pragma unroll
        for (int e = threadIdx.x / router_columns; e < router_experts; e += threads / router_columns)
            weights[e * pitch + c] =
                inside && first_expert + e < experts
                    ? args.router[static_cast<Size>(first_expert + e) * hidden + column + c]
                    : 0.0f;
#pragma unroll
        for (int r = threadIdx.x / router_columns; r < router_rows; r += threads / router_columns)
            normed[r * pitch + c] =
                inside && first_row + r < args.rows
                    ? Norm::template apply<CudaStore>(
                          args.norm, column + c,
                          load_cg(args.x + static_cast<Size>(first_row + r) * hidden + column + c),
                          statistics[2 * r], statistics[2 * r + 1])
                    : 0.0f;
    }

    /// sums += the warp's 32 columns of the stage.
    GG_DEVICE static void multiply(const float* weights, const float* normed, int warp, int lane,
                                   float (&sums)[4][4]) {
#pragma unroll
        for (int k = 32 * warp; k < 32 * warp + 32; k += 4) {
            float4 w[4], x[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                w[i] = *reinterpret_cast<const float4*>(weights + (lane % 8 + 8 * i) * pitch + k);
                x[i] = *reinterpret_cast<const float4*>(normed + (lane / 8 + 4 * i) * pitch + k);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    sums[i][j] += w[i].x * x[j].x;
                    sums[i][j] += w[i].y * x[j].y;
                    sums[i][j] += w[i].z * x[j].z;
                    sums[i][j] += w[i].w * x[j].w;
                }
        }
    }

    /// A logit on its way through a search for the largest.
    struct Candidate {
        float logit;
        int index;  ///< `experts` for none

        /// Whether it comes before another in TopKRouter's order.
        GG_DEVICE bool before(const Candidate& other) const {
            if (index == experts || other.index == experts) return index < other.index;
            const bool number = logit == logit, other_number = other.logit == other.logit;
            if (number != other_number) return number;
            return logit > other.logit || (!(logit < other.logit) && index < other.index);
        }
    };

    /// Picks the experts of one row, by one warp.
    GG_DEVICE static void select(const float* logits, int lane, int* expert, float* weight) {
        unsigned taken = 0;  // bit i: this lane's logit lane + 32 i
        float picked[used];
#pragma unroll
        for (int rank = 0; rank < used; ++rank) {
            Candidate best{0.0f, experts};
#pragma unroll
            for (int i = 0; i < (experts + warp_size - 1) / warp_size; ++i) {
                const int e = lane + i * warp_size;
                if (e < experts && !(taken >> i & 1)) {
                    const Candidate candidate{logits[e], e};
                    if (candidate.before(best)) best = candidate;
                }
            }
#pragma unroll
            for (int distance = warp_size / 2; distance > 0; distance /= 2) {
                const Candidate other{__shfl_xor_sync(whole_warp, best.logit, distance),
                                      __shfl_xor_sync(whole_warp, best.index, distance)};
                if (other.before(best)) best = other;
            }
            if (best.index % warp_size == lane) taken |= 1u << (best.index / warp_size);
            picked[rank] = best.logit;
            if (lane == 0) expert[rank] = best.index;
        }
        if (lane == 0) {
            // They are in order already: only the weights are new.
            int ranks[used];
            float weights[used];
            TopKRouter::select(picked, used, used, ranks, weights);
#pragma unroll
            for (int rank = 0; rank < used; ++rank) weight[rank] = weights[rank];
        }
    }
};

}  // namespace gg::cuda
