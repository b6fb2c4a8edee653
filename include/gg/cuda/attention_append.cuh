// AppendKeys: from the product of q, k and v for consecutive rows of one sequence to what attention reads.
//
//   q, k heads: the block's policies (rotary embedding, norms ...), then FP16;  v heads: FP16
//   queries [rows][heads][head_stride]; k and v of position p into slot p mod positions of the layer's cache
//
// A warp treats one head at a time. Elements behind head_dim, up to head_stride, become 0. What exceeds FP16
// becomes +-65504 and is counted. q is not scaled by 1/sqrt(head_dim) here: the scores are, in FP32.
// Bytes moved per row: the product once, 4 each; queries, keys and values once, 2 each.
#pragma once

#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/attention_primitives.cuh"
#include "gg/cuda/head_transform.cuh"

namespace gg::cuda {

/// Launched with append_blocks(heads, kv_heads, rows) blocks.
template <class Dims, class Block>
struct AppendKeys {
    using Args = AppendKeysArgs<typename Block::template Weights<CudaStore>>;

    static constexpr int warps = 8;
    static constexpr int threads = warps * warp_size;
    static constexpr int residency = 2;
    static constexpr int head_dim = Dims::head_dim, stride = head_stride(head_dim), half = head_dim / 2;
    static constexpr int heads = Dims::heads + 2 * Dims::kv_heads;  ///< of q, k and v
    static constexpr int shared_bytes = (warps + 1) * stride * 4;
    static constexpr QkvColumns columns = qkv_columns(Dims::heads, Dims::kv_heads, head_dim);

    GG_DEVICE static void run(const Args& args) {
        constexpr int blocks_of_row = append_blocks_of_row(Dims::heads, Dims::kv_heads);
        float* const tables = reinterpret_cast<float*>(dynamic_shared());
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
        const int row = static_cast<int>(blockIdx.x) / blocks_of_row;
        const int begin = static_cast<int>(blockIdx.x) % blocks_of_row * append_heads;
        const int end = begin + append_heads < heads ? begin + append_heads : heads;
        wait_for_previous();
        if constexpr (Block::has_rotary) {
            for (int i = static_cast<int>(threadIdx.x); i < half; i += threads) {
                tables[i] = load_cg(args.cosines + Size(row) * half + i);
                tables[half + i] = load_cg(args.sines + Size(row) * half + i);
            }
            __syncthreads();
        }
        for (int head = begin + warp; head < end; head += warps)
            append(args, row, head, tables, tables + (1 + warp) * stride);
    }

  private:
    /// Heads are numbered q, k, v.
    GG_DEVICE static void append(const Args& args, int row, int head, const float* tables, float* x) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        const bool is_key = head >= Dims::heads, is_value = head >= Dims::heads + Dims::kv_heads;
        const int index = head - (is_value ? Dims::heads + Dims::kv_heads : is_key ? Dims::heads : 0);
        const float* const source = args.product + Size(row) * columns.width +
                                    (is_value ? columns.v
                                     : is_key ? columns.k
                                              : 0) +
                                    index * head_dim;
        for (int i = lane; i < stride; i += warp_size) x[i] = i < head_dim ? load_cg(source + i) : 0.0f;
        __syncwarp();
        if (!is_value) {
            const HeadPlace place = {index, is_key, Block::has_rotary ? tables : nullptr,
                                     Block::has_rotary ? tables + half : nullptr};
            transform_head<Dims, Block>(args.weights, place, x, lane);
        }
        unsigned short* out;
        if (is_key) {
            const LayerCache cache = layer_cache<Dims>(args.cache, args.capacity, args.place);
            const int slot = (args.start + row) % cache.positions;
            out = (is_value ? cache.values : cache.keys) + (Size(index) * cache.positions + slot) * stride;
        } else {
            out = args.queries + (Size(row) * Dims::heads + index) * stride;
        }
        for (int i = 2 * lane; i < stride; i += 2 * warp_size)
            store_operand<HalfOperand>(out, 0, i, x[i], x[i + 1], args.overflows);
        __syncwarp();
    }
};

}  // namespace gg::cuda
