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

/// Chooses experts from the sums that the stage before left. Made before the wait, so that the router's bias
/// is at hand.
template <class FeedForward, int rows, int multiprocessors>
class Route {
  public:
    static constexpr int experts = FeedForward::experts, used = FeedForward::used;
    static constexpr int most = FeedForward::most(rows);
    static constexpr int sums = rows * experts;
    static constexpr int parts = experts > 0 ? sum_parts(512, sums) : 1;
    static constexpr int part_blocks = (multiprocessors + parts - 1) / parts;
    static constexpr int lane_experts = experts > 0 ? (experts + warp_size - 1) / warp_size : 1;
    using Chosen = Choice<rows, used, most>;

    /// Shared memory that gather needs.
    static constexpr int shared_bytes = parts * sums * 4;

    GG_DEVICE explicit Route(const float* bias) : lane_(static_cast<int>(threadIdx.x) % warp_size) {
#pragma unroll
        for (int j = 0; j < lane_experts; ++j) {
            const int e = lane_ + j * warp_size;
            bias_[j] = bias && e < experts ? bias[e] : 0.0f;
        }
    }

    /// router_sums [blocks][rows][experts] in a few parts to shared memory.
    GG_DEVICE void gather(const float* router_sums, int blocks, int used_rows, float* partial) const {
        const int per_part = (blocks + parts - 1) / parts;
        for (int i = static_cast<int>(threadIdx.x); i < parts * sums; i += static_cast<int>(blockDim.x)) {
            const int part = i / sums, column = i % sums;
            const int from = part * per_part, left = blocks - from;
            const float* at = router_sums + Size(from) * sums + column;
            const bool live = column / experts < used_rows;
            float sum = 0.0f;
            constexpr int batch = part_blocks < 12 ? part_blocks : 12;  // loads under way together
#pragma unroll 1
            for (int b = 0; b < per_part; b += batch) {
                float part_of[batch];
#pragma unroll
                for (int k = 0; k < batch; ++k)
                    part_of[k] =
                        live && b + k < per_part && b + k < left ? load_cg(at + Size(b + k) * sums) : 0.0f;
#pragma unroll
                for (int k = 0; k < batch; ++k) sum += part_of[k];
            }
            partial[i] = sum;
        }
    }

    /// One warp: the experts of a row's `used` largest logits, ties to the lower index, NaN after every
    /// number. Keeps the logits for weigh(). `scale` is the norm's factor.
    GG_DEVICE void select(int row, float scale, const float* partial, Chosen& choice) {
        unsigned keys[lane_experts];  // larger ones come first; 1: NaN, 0: none
#pragma unroll
        for (int j = 0; j < lane_experts; ++j) {
            const int e = lane_ + j * warp_size;
            keys[j] = 0;
            if (e >= experts) continue;
            float part_of[parts], sum = 0.0f;
#pragma unroll
            for (int part = 0; part < parts; ++part) part_of[part] = partial[part * sums + row * experts + e];
#pragma unroll
            for (int part = 0; part < parts; ++part) sum += part_of[part];
            const float logit = sum * scale + bias_[j];
            keys[j] = logit == logit ? static_cast<unsigned>(text::order_key(logit, 0) >> 32) : 1u;
        }
#pragma unroll
        for (int rank = 0; rank < used; ++rank) {
            unsigned best = 0, index = experts;
#pragma unroll
            for (int j = lane_experts - 1; j >= 0; --j)
                if (keys[j] >= best && keys[j] > 0) best = keys[j], index = lane_ + j * warp_size;
            const unsigned largest = warp_largest(best);
            const unsigned expert = warp_smallest(best == largest ? index : experts);
#pragma unroll
            for (int j = 0; j < lane_experts; ++j)
                if (expert == static_cast<unsigned>(lane_ + j * warp_size)) keys[j] = 0;
            picked_[rank] = largest == 1 ? quiet_nan() : text::key_logit(Size(largest) << 32);
            if (lane_ == 0) choose(choice, row, rank, static_cast<int>(expert));
        }
    }

    /// The warp that selected a row, before it selects another: the weights of the row's experts, softmax
    /// over their logits alone, summed in rank order.
    GG_DEVICE void weigh(int row, Chosen& choice) const {
        float weights[used], total = 0.0f;
#pragma unroll
        for (int rank = 0; rank < used; ++rank) {
            weights[rank] = exp(picked_[rank] - picked_[0]);
            total += weights[rank];
        }
        const float factor = 1.0f / total;
        if (lane_ == 0)
#pragma unroll
            for (int rank = 0; rank < used; ++rank) choice.weight[row][rank] = weights[rank] * factor;
    }

    /// Lists the experts that are used at all, when every row has chosen and all threads know. Ends with a
    /// barrier, unless there is one row, whose choice is the list.
    GG_DEVICE static void list(int used_rows, Chosen& choice) {
        if constexpr (rows == 1) return;
        const int thread = static_cast<int>(threadIdx.x);
        if (thread < warp_size) {
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

  private:
    int lane_;
    float bias_[lane_experts];
    float picked_[used];  ///< logits of the row selected last, in every lane

    GG_DEVICE static void choose(Chosen& choice, int row, int rank, int expert) {
        choice.expert[row][rank] = expert;
        if constexpr (rows == 1) {
            choice.listed[rank] = expert;
            choice.rank[0][rank] = rank;
            choice.count = used;
        }
    }
};

/// Copies a choice for the next stage, by one warp of one block, and makes it visible: the next kernel may
/// read it as soon as it has been launched, if of this block only this warp calls launch_next, and after.
template <class Chosen>
GG_DEVICE void publish(const Chosen& choice, void* to) {
    static_assert(sizeof(Chosen) % sizeof(int) == 0);
    const int* from = reinterpret_cast<const int*>(&choice);
    __syncwarp();
    for (int i = static_cast<int>(threadIdx.x) % warp_size;
         i < static_cast<int>(sizeof(Chosen) / sizeof(int)); i += warp_size)
        static_cast<int*>(to)[i] = from[i];
    release_fence();
    __syncwarp();
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
    };
    const unsigned char* tiles;
    Size expert_bytes;
    const Chosen* choice;

    GG_DEVICE static constexpr int columns() { return column_tiles_; }
    GG_DEVICE Place at(int tile) const { return {tile / column_tiles_, tile % column_tiles_}; }
    GG_DEVICE int in_row(const Place& p) const { return column_tiles_ - p.k; }
    GG_DEVICE void advance(Place& p, int count) const {
        p.k += count;
        if (p.k < column_tiles_) return;
        p.k = 0;
        ++p.row;
    }
    GG_DEVICE const unsigned char* address(const Place& p) const {
        return tiles + Size(choice->listed[p.row / row_tiles_]) * expert_bytes +
               (Size(p.row % row_tiles_) * column_tiles_ + p.k) * tile_bytes;
    }
    GG_DEVICE int contiguous(const Place& p) const {
        return (row_tiles_ - p.row % row_tiles_) * column_tiles_ - p.k;
    }
};

/// Tiles of the listed experts side by side: a row of tiles is one row of each expert's matrix in turn.
template <class Chosen, int column_tiles_, int tile_bytes, int fixed_count>
struct ExpertColumnsStream {
    struct Place {
        int row;
        int k;  ///< counted on over the experts of the list
    };
    const unsigned char* tiles;
    Size expert_bytes;
    const Chosen* choice;
    int count;

    GG_DEVICE int columns() const { return (fixed_count > 0 ? fixed_count : count) * column_tiles_; }
    GG_DEVICE Place at(int tile) const { return {tile / columns(), tile % columns()}; }
    GG_DEVICE int in_row(const Place& p) const { return columns() - p.k; }
    GG_DEVICE void advance(Place& p, int count_) const {
        p.k += count_;
        if (p.k < columns()) return;
        p.k = 0;
        ++p.row;
    }
    GG_DEVICE const unsigned char* address(const Place& p) const {
        return tiles + Size(choice->listed[p.k / column_tiles_]) * expert_bytes +
               (Size(p.row) * column_tiles_ + p.k % column_tiles_) * tile_bytes;
    }
    GG_DEVICE int contiguous(const Place& p) const { return column_tiles_ - p.k % column_tiles_; }
};

}  // namespace gg::cuda
