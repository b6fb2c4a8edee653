// WarpgroupPrefillAttention: PrefillAttention (attention_prefill.cuh) by warpgroups, for sm_90a and heads of
// 64 or 128 elements.
//
// The heads that share a key head are rows of one matrix Q: its row m is row m / group of the queries, head
// m % group of the key head's `group`. A block has 64 rows of Q a warpgroup, so that few rows of queries, and
// few keys that only some of them see, are in a block, and its keys serve all their heads. One more warpgroup
// copies the tiles of keys and values ahead (attention_prefill_tiles.cuh). Within a warpgroup the scores of
// tile t are multiplied before the values of tile t - 1, and both run while the weights of tile t are formed:
//
//   S_t = Q K_t^T;  O = O + P_(t-1) V_(t-1);  P_t = weights(S_t);  O = O 2^(m_(t-1) - m_t)
//
// Sums of scores are operand A of the product with values where they are (warpgroup.cuh); values
// [key][element] are a transposed operand B. Numbers, tiles aligned to positions and the order of blocks are
// those of PrefillAttention. Source: Shah et al., "FlashAttention-3", 2024.
#pragma once

#include "gg/cuda/attention_prefill.cuh"
#include "gg/cuda/attention_prefill_tiles.cuh"

namespace gg::cuda {

/// Launched with warpgroup_prefill_blocks(heads, kv_heads, head_dim, rows) blocks. Operand is what the output
/// product takes.
template <class Dims, class Block, class Operand,
          WarpgroupPrefillShape shape = warpgroup_prefill_shape(Dims::head_dim)>
struct WarpgroupPrefillAttention {
    using Args = PrefillAttentionArgs<typename Block::template Weights<CudaStore>>;
    using Tiles = WarpgroupTiles<Dims, Args, shape>;

    static constexpr int head_dim = Dims::head_dim, group = Tiles::group;
    static_assert(warpgroup_prefill_supports(head_dim) && head_stride(head_dim) == head_dim);
    static constexpr int warpgroups = shape.warpgroups, keys = shape.keys, planes = head_dim / 64;
    static constexpr int threads = shape.threads(), shared_bytes = Tiles::shared_bytes;
    static constexpr int residency = shape.residency;  ///< blocks that share a multiprocessor

    GG_DEVICE static void run([[maybe_unused]] const Args& args) {
        if constexpr (has_warpgroups) {
            wait_for_previous();
            __shared__ typename Tiles::Barriers barriers;
            if (threadIdx.x == 0) barriers.init();
            __syncthreads();
            const Tiles tiles(args, barriers);
            if (tiles.warp >= 4 * warpgroups) {
                warpgroup_registers<shape.copy_registers(), false>();
                tiles.copy();
            } else {
                warpgroup_registers<shape.product_registers(), true>();
                Products(tiles).run();
            }
        }
    }

  private:
    /// The work of the other warps.
    struct Products;
};

template <class Dims, class Block, class Operand, WarpgroupPrefillShape shape>
struct WarpgroupPrefillAttention<Dims, Block, Operand, shape>::Products {
    static constexpr int groups = keys / 8, steps = head_dim / 16;

    const Tiles& of;
    const int warpgroup, row;  ///< the warp's first row of Q
    const int first, last;     ///< positions of the warp's rows
    float scores[groups][4] = {};
    unsigned weights[keys / 16][4];
    float out[planes][8][4] = {};
    unsigned query[shape.queries_in_registers ? steps : 1][4];
    OnlineSoftmax<head_dim> softmax;

    GG_DEVICE explicit Products(const Tiles& block)
        : of(block),
          warpgroup(block.warp / 4),
          row(block.first_row + 16 * block.warp),
          first(block.position(row)),
          last(block.position(row + 15)) {}

    GG_DEVICE void run() {
        copy_queries();
        typename Tiles::Stage stage, before;
        int base = of.first_tile * keys;
        const int end = (of.last_tile + 1) * keys;
        if (shape.in_turn && warpgroup == 0) block_barrier_arrive(turn(0), 2 * warpgroup_size);
        begin_turn(stage);
        multiply_keys(stage.slot);
        end_turn();
        warpgroup_wait<0>();
        warpgroup_settle(scores);
        float factor[2];
        weigh(base, factor);
        pack();
#pragma unroll 1
        for (base += keys; base < end; base += keys) {
            before = stage;
            stage.next();
            begin_turn(stage);
            multiply_keys(stage.slot);
            multiply_values(before.slot);
            end_turn();
            warpgroup_wait<1>();
            warpgroup_settle(scores);
            weigh(base, factor);
            warpgroup_settle(scores);  // weights are formed while the values are multiplied
            warpgroup_wait<0>();
            settle_out();
            if (of.lane == 0) barrier_arrive(of.barriers.empty + before.slot);
            rescale(factor);
            pack();
        }
        warpgroup_arrive();
        multiply_values(stage.slot);
        warpgroup_wait<0>();
        settle_out();
        store();
    }

    /// Rows after the last become 0.
    GG_DEVICE void copy_queries() {
        constexpr int chunks = head_dim / 8;
        unsigned char* const to = queries();
        const int thread = of.warp % 4 * warp_size + of.lane, begin = of.first_row + 64 * warpgroup;
#pragma unroll
        for (int i = 0; i < chunks / 2; ++i) {
            const int flat = i * warpgroup_size + thread, m = flat / chunks, chunk = flat % chunks;
            const bool valid = begin + m < of.rows;
            const int token = (begin + m) / group, head = of.kv_head * group + (begin + m) % group;
            const Size at = (Size(token) * Dims::heads + head) * head_dim + 8 * chunk;
            copy_async_16_or_zero(to + Tiles::place(warpgroup_rows, m, chunk),
                                  of.args.queries + (valid ? at : 0), valid);
        }
        copy_async_commit();
        copy_async_wait<0>();
        copy_engine_fence();
        block_barrier(1 + warpgroup, warpgroup_size);
        if constexpr (shape.queries_in_registers)
#pragma unroll
            for (int k = 0; k < steps; ++k)
                load_matrices(query[k], to + Tiles::place(warpgroup_rows, of.warp % 4 * 16 + of.lane % 16,
                                                          2 * k + of.lane / 16));
    }
    GG_DEVICE unsigned char* queries() const {
        return of.shared + warpgroup * Tiles::query_bytes;
    }

    GG_DEVICE static constexpr int turn(int warpgroup) {
        return 1 + warpgroups + warpgroup;
    }

    /// Waits for a tile, and for this warpgroup's turn.
    GG_DEVICE void begin_turn(const typename Tiles::Stage& stage) {
        barrier_wait(of.barriers.full + stage.slot, stage.parity);
        if constexpr (shape.in_turn) block_barrier(turn(warpgroup), 2 * warpgroup_size);
        warpgroup_arrive();
    }
    GG_DEVICE void end_turn() {
        if constexpr (shape.in_turn)
            block_barrier_arrive(turn(warpgroup + 1 == warpgroups ? 0 : warpgroup + 1), 2 * warpgroup_size);
    }

    GG_DEVICE void multiply_keys(int slot) {
        const Size b = describe_tokens(of.stage(slot));
        [[maybe_unused]] const Size a = describe_tokens(queries());
#pragma unroll
        for (int k = 0; k < steps; ++k) {
            // 16-byte units: a plane, and 32 bytes a step within it
            const Size b_k = b + k / 4 * (keys * 8) + k % 4 * 2;
            if constexpr (shape.queries_in_registers) {
                if (k == 0)
                    warpgroup_multiply<false>(scores, query[k], b_k);
                else
                    warpgroup_multiply<true>(scores, query[k], b_k);
            } else {
                const Size a_k = a + k / 4 * (warpgroup_rows * 8) + k % 4 * 2;
                if (k == 0)
                    warpgroup_multiply<false>(scores, a_k, b_k);
                else
                    warpgroup_multiply<true>(scores, a_k, b_k);
            }
        }
        warpgroup_commit();
    }

    GG_DEVICE void multiply_values(int slot) {
        const Size b = describe_tokens(of.stage(slot) + Tiles::tile_bytes);
#pragma unroll
        for (int k = 0; k < keys / 16; ++k)
#pragma unroll
            for (int plane = 0; plane < planes; ++plane)  // 16 keys are 2048 bytes
                warpgroup_multiply<true, true>(out[plane], weights[k], b + plane * (keys * 8) + k * 128);
        warpgroup_commit();
    }

    GG_DEVICE void settle_out() {
        warpgroup_settle(scores);
#pragma unroll
        for (int plane = 0; plane < planes; ++plane) warpgroup_settle(out[plane]);
    }

    GG_DEVICE void weigh(int base, float (&factor)[2]) {
        const int window = of.args.place.window, tile_end = base + keys - 1;
        if (tile_end > first || (window > 0 && base <= last - window)) {
            const int m = row + of.lane / 4;
            mask_scores(scores, base, {of.position(m), of.position(m + 8)}, window);
        }
        softmax.weigh(scores, factor);
    }

    /// Most tiles have no new largest score for any row of the warp.
    GG_DEVICE void rescale(const float (&factor)[2]) {
        if (__any_sync(whole_warp, factor[0] != 1.0f || factor[1] != 1.0f))
#pragma unroll
            for (int plane = 0; plane < planes; ++plane) scale_rows(out[plane], factor);
    }

    GG_DEVICE void pack() {
#pragma unroll
        for (int k = 0; k < keys / 16; ++k) pack_weights(weights[k], scores, k);
    }

    GG_DEVICE void store() {
        constexpr int width = Dims::heads * head_dim, out_stride = operand_stride(width);
        static_assert(width == out_stride, "no padding");
        const Size plane_stride = Size(of.args.rows) * out_stride;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int m = row + 8 * h + of.lane / 4, head = of.kv_head * group + m % group;
            float sink = 0.0f;
            if constexpr (Block::has_sinks) sink = of.args.weights.sink[head];
            const float factor = softmax.template quotient<Block::has_sinks>(h, sink);
            if (m >= of.rows) continue;
            unsigned short* const to = of.args.out + Size(m / group) * out_stride;
#pragma unroll
            for (int plane = 0; plane < planes; ++plane)
#pragma unroll
                for (int n = 0; n < 8; ++n)
                    store_head_pair<Operand, head_dim>(
                        to, plane_stride, head, 64 * plane + 8 * n + of.lane % 4 * 2,
                        out[plane][n][2 * h] * factor, out[plane][n][2 * h + 1] * factor, of.args.overflows);
        }
    }
};

namespace detail {

template <class Dims, class Block, class Operand, bool warpgroups>
struct PrefillAttentionOf {
    using Stage = PrefillAttention<Dims, Block, Operand>;
};
template <class Dims, class Block, class Operand>
struct PrefillAttentionOf<Dims, Block, Operand, true> {
    using Stage = WarpgroupPrefillAttention<Dims, Block, Operand>;
};

}  // namespace detail

/// The stage for a chip that has products of warpgroups or has not: theirs where they support the heads.
template <class Dims, class Block, class Operand, bool warpgroups>
using PrefillAttentionFor =
    typename detail::PrefillAttentionOf<Dims, Block, Operand,
                                        warpgroups && warpgroup_prefill_supports(Dims::head_dim)>::Stage;

}  // namespace gg::cuda
