// Routing of many rows: logits (router_logits.cuh), then the `used` largest with their softmax as
// TopKRouter::select has it: descending, ties to the lower index, a NaN after every number. One warp a row.
#pragma once

#include "gg/cuda/router_logits.cuh"

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
        launch_next();
        wait_for_previous();
        const int rows = router_rows(args.rows, experts);
        if (rows == 4) route<4>(args);
        if (rows == 16) route<16>(args);
        if constexpr (router_fits(32, experts))
            if (rows == 32) route<32>(args);
    }

  private:
    static constexpr int experts = Dims::experts, used = Dims::experts_used;
    static_assert(experts <= 256 && used <= 8 && used <= experts);

    template <int rows>
    GG_DEVICE static void route(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        const float* const logits =
            detail::RouterLogits<Norm, Dims, rows>(args, reinterpret_cast<float*>(shared)).run();
        const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
        const int first_row = blockIdx.x * rows;
        for (int r = warp; r < rows; r += threads / warp_size)
            if (first_row + r < args.rows)
                select(logits + r * experts, lane, args.expert + static_cast<Size>(first_row + r) * used,
                       args.weight + static_cast<Size>(first_row + r) * used);
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
