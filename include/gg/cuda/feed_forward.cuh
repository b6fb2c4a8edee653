// What the stages of a feed-forward block must know of it, and which experts a step's rows use.
//
// Up to 8 rows choose experts of their own. Each expert's matrices are read once for all rows that chose it:
// the step's experts are listed once (one row: in rank order; several: by index), and a row that did not
// choose one has zeros for it.
#pragma once

#include "gg/block/mixture_of_experts.hpp"
#include "gg/cuda/router_sums.cuh"
#include "gg/cuda/stage_args.hpp"
#include "gg/text/logit.hpp"

namespace gg::cuda {

/// A dense or routed feed-forward block in numbers.
template <class Block, class Dims>
struct FeedForward;

template <class Activation_, class BiasPolicy, class Dims>
struct FeedForward<Mlp<Activation_, BiasPolicy>, Dims> {
    using Activation = Activation_;
    static constexpr bool routed = false, has_bias = BiasPolicy::bias;
    static constexpr int width = Dims::feed_forward, experts = 0, used = 1;
    /// Experts that `rows` rows may use together.
    GG_HD static constexpr int most(int /*rows*/) { return 1; }
};

template <class Activation_, class BiasPolicy, class Dims>
struct FeedForward<MixtureOfExperts<Activation_, BiasPolicy>, Dims> {
    using Activation = Activation_;
    static constexpr bool routed = true, has_bias = BiasPolicy::bias;
    static constexpr int width = Dims::expert_feed_forward, experts = Dims::experts,
                         used = Dims::experts_used;
    GG_HD static constexpr int most(int rows) { return most_experts(rows, used, experts); }
};

/// Chooses experts from the sums that the stage before left.
template <class FeedForward, int rows, int warps>
struct Route {
    static constexpr int experts = FeedForward::experts, used = FeedForward::used;
    static constexpr int most = FeedForward::most(rows);
    static constexpr int threads = warps * warp_size;
    static constexpr int sums = rows * experts;
    static constexpr int parts = sum_parts(threads, sums);
    static constexpr int lane_experts = (experts + warp_size - 1) / warp_size;
    using Chosen = Choice<rows, used, most>;

    /// Floats of shared memory that run needs.
    static constexpr int partial_floats = parts * sums;

    /// router_sums [blocks][rows][experts] in a few parts to shared memory.
    GG_DEVICE static void gather(const float* router_sums, int blocks, int used_rows, float* partial) {
        for (int i = static_cast<int>(threadIdx.x); i < parts * sums; i += threads) {
            const int part = i / sums, column = i % sums;
            const int to = share_begin(blocks, part + 1, parts);
            float sum = 0.0f;
            if (column / experts < used_rows)
#pragma unroll 8
                for (int b = share_begin(blocks, part, parts); b < to; ++b)
                    sum += load_cg(router_sums + Size(b) * sums + column);
            partial[i] = sum;
        }
    }

    /// One warp: the `used` largest logits of a row, ties to the lower index, NaN after every number; softmax
    /// over those alone, summed in rank order. `scale` is the norm's factor.
    GG_DEVICE static void select(int row, const float* bias, float scale, const float* partial,
                                 Chosen& choice) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        unsigned long long keys[lane_experts];
#pragma unroll
        for (int j = 0; j < lane_experts; ++j) {
            const int e = lane + j * warp_size;
            keys[j] = 0;
            if (e >= experts) continue;
            float sum = 0.0f;
            for (int part = 0; part < parts; ++part) sum += partial[part * sums + row * experts + e];
            const float logit = sum * scale + (bias ? bias[e] : 0.0f);
            keys[j] = logit == logit ? text::order_key(logit, static_cast<unsigned>(e)) : 0xFFFFFFFFu - e;
        }
        float logits[used], total = 0.0f;
#pragma unroll
        for (int rank = 0; rank < used; ++rank) {
            unsigned long long best = 0;
#pragma unroll
            for (int j = 0; j < lane_experts; ++j) best = keys[j] > best ? keys[j] : best;
#pragma unroll
            for (int distance = 16; distance > 0; distance /= 2) {
                const unsigned long long other = __shfl_xor_sync(whole_warp, best, distance);
                best = other > best ? other : best;
            }
#pragma unroll
            for (int j = 0; j < lane_experts; ++j)
                if (keys[j] == best) keys[j] = 0;
            logits[rank] = best >> 32 ? text::key_logit(best) : quiet_nan();
            if (lane == 0) choice.expert[row][rank] = static_cast<int>(text::key_id(best));
        }
#pragma unroll
        for (int rank = 0; rank < used; ++rank) total += exp(logits[rank] - logits[0]);
        if (lane == 0)
#pragma unroll
            for (int rank = 0; rank < used; ++rank)
                choice.weight[row][rank] = exp(logits[rank] - logits[0]) / total;
    }

    /// Lists the experts that are used at all, when every row has chosen. Ends with a barrier.
    GG_DEVICE static void list(int used_rows, Chosen& choice) {
        const int thread = static_cast<int>(threadIdx.x);
        if constexpr (rows == 1) {
            if (thread < used) {
                choice.listed[thread] = choice.expert[0][thread];
                choice.rank[0][thread] = thread;
            }
            if (thread == 0) choice.count = used;
        } else if (thread < warp_size) {
            int count = 0;
            for (int base = 0; base < experts; base += warp_size) {
                const int e = base + thread;
                bool chosen = false;
                for (int i = 0; i < used_rows * used; ++i)
                    chosen = chosen || choice.expert[i / used][i % used] == e;
                const unsigned lanes = __ballot_sync(whole_warp, chosen);
                if (chosen) {
                    const int place = count + __popc(lanes & ((1u << thread) - 1u));
                    choice.listed[place] = e;
                    for (int row = 0; row < used_rows; ++row) {
                        int rank = -1;
                        for (int r = 0; r < used; ++r) rank = choice.expert[row][r] == e ? r : rank;
                        choice.rank[row][place] = rank;
                    }
                }
                count += __popc(lanes);
            }
            if (thread == 0) choice.count = count;
        }
        __syncthreads();
    }
};

/// Copies a choice for the next stage, by one block, and makes it visible: the next kernel may read it as
/// soon as it has been launched, if this block calls launch_next after.
template <class Chosen>
GG_DEVICE void publish(const Chosen& choice, void* to, int threads) {
    static_assert(sizeof(Chosen) % sizeof(int) == 0);
    const int* from = reinterpret_cast<const int*>(&choice);
    for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(sizeof(Chosen) / sizeof(int));
         i += threads)
        static_cast<int*>(to)[i] = from[i];
    __threadfence();
    __syncthreads();
}

/// Reads what publish wrote; ends with a barrier.
template <class Chosen>
GG_DEVICE void receive(const void* from, Chosen& choice, int threads) {
    for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(sizeof(Chosen) / sizeof(int));
         i += threads)
        reinterpret_cast<int*>(&choice)[i] = load_acquire(static_cast<const int*>(from) + i);
    __syncthreads();
}

/// Tiles of the listed experts, one expert's matrix after the other.
template <class Chosen, int row_tiles_, int column_tiles_, int tile_bytes>
struct ExpertRowsStream {
    struct Place {
        int row, k;
        int expert;     ///< of the list
        int inner_row;  ///< row tile within the expert's matrix
    };
    const unsigned char* tiles;
    Size expert_bytes;
    const Chosen* choice;

    GG_DEVICE static constexpr int columns() { return column_tiles_; }
    GG_DEVICE Place at(int tile) const {
        const int row = tile / column_tiles_;
        return {row, tile % column_tiles_, row / row_tiles_, row % row_tiles_};
    }
    GG_DEVICE int in_row(const Place& p) const { return column_tiles_ - p.k; }
    GG_DEVICE void advance(Place& p, int count) const {
        p.k += count;
        if (p.k < column_tiles_) return;
        p.k = 0;
        ++p.row;
        if (++p.inner_row < row_tiles_) return;
        p.inner_row = 0;
        ++p.expert;
    }
    GG_DEVICE const unsigned char* address(const Place& p) const {
        return tiles + Size(choice->listed[p.expert]) * expert_bytes +
               (Size(p.inner_row) * column_tiles_ + p.k) * tile_bytes;
    }
    GG_DEVICE int contiguous(const Place& p) const {
        return (row_tiles_ - p.inner_row) * column_tiles_ - p.k;
    }
};

/// Tiles of the listed experts side by side: a row of tiles is one row of each expert's matrix in turn.
template <class Chosen, int column_tiles_, int tile_bytes, int fixed_count>
struct ExpertColumnsStream {
    struct Place {
        int row;
        int expert;  ///< of the list
        int k;       ///< within the expert's row
    };
    const unsigned char* tiles;
    Size expert_bytes;
    const Chosen* choice;
    int count;

    GG_DEVICE int experts() const { return fixed_count > 0 ? fixed_count : count; }
    GG_DEVICE int columns() const { return experts() * column_tiles_; }
    GG_DEVICE Place at(int tile) const {
        const int row = tile / columns(), column = tile % columns();
        return {row, column / column_tiles_, column % column_tiles_};
    }
    GG_DEVICE int in_row(const Place& p) const { return column_tiles_ - p.k; }
    GG_DEVICE void advance(Place& p, int count) const {
        p.k += count;
        if (p.k < column_tiles_) return;
        p.k = 0;
        if (++p.expert < experts()) return;
        p.expert = 0;
        ++p.row;
    }
    GG_DEVICE const unsigned char* address(const Place& p) const {
        return tiles + Size(choice->listed[p.expert]) * expert_bytes +
               (Size(p.row) * column_tiles_ + p.k) * tile_bytes;
    }
    GG_DEVICE int contiguous(const Place& p) const { return column_tiles_ - p.k; }
};

}  // namespace gg::cuda
