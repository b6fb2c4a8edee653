// AppendKeys: from the product of q, k and v for consecutive rows of one sequence to what attention reads.
//
//   q, k heads: the block's policies (rotary embedding, norms ...), then FP16;  v heads: FP16
//   queries [rows][heads][head_stride]; k and v of position p into slot p mod positions of the layer's cache
//
// Where the policies only rotate pairs, and rows and heads begin at multiples of 16 bytes, a thread treats 8
// elements of a head in registers: 2 quads that hold 4 pairs. Otherwise a warp treats one head at a time in
// shared memory. The bits are the same.
//
// Elements behind head_dim, up to head_stride, become 0. What exceeds FP16 becomes +-65504 and is counted. q
// is not scaled by 1/sqrt(head_dim) here: the scores are, in FP32. Bytes moved per row: the product once, 4
// each; queries, keys and values once, 2 each.
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
    static constexpr detail::Turning turning = detail::block_turning<Block>;
    /// Whether heads stay in registers.
    static constexpr bool quads = turning != detail::Turning::unknown && head_dim % 8 == 0;
    static constexpr int shared_bytes = quads ? 0 : (warps + 1) * stride * 4;
    static constexpr QkvColumns columns = qkv_columns(Dims::heads, Dims::kv_heads, head_dim);

    GG_DEVICE static void run(const Args& args) {
        constexpr int blocks_of_row = append_blocks_of_row(Dims::heads, Dims::kv_heads);
        const int row = static_cast<int>(blockIdx.x) / blocks_of_row;
        const int begin = static_cast<int>(blockIdx.x) % blocks_of_row * append_heads;
        const int end = begin + append_heads < heads ? begin + append_heads : heads;
        wait_for_previous();
        if constexpr (quads) {
            constexpr int head_threads = head_dim / 8;
            for (int i = static_cast<int>(threadIdx.x); i < (end - begin) * head_threads; i += threads)
                append_quads(args, row, begin + i / head_threads, i % head_threads);
        } else {
            append_heads_of(args, row, begin, end);
        }
    }

  private:
    /// One head of a row, numbered q, k, v.
    struct Head {
        int index;  ///< among queries, keys or values
        bool is_key, is_value;

        GG_DEVICE explicit Head(int head)
            : index(head), is_key(head >= Dims::heads), is_value(head >= Dims::heads + Dims::kv_heads) {
            index -= is_value ? Dims::heads + Dims::kv_heads : is_key ? Dims::heads : 0;
        }

        GG_DEVICE const float* source(const Args& args, int row) const {
            const int begin = is_value ? columns.v : is_key ? columns.k : 0;
            return args.product + Size(row) * columns.width + begin + index * head_dim;
        }

        GG_DEVICE unsigned short* destination(const Args& args, int row) const {
            if (!is_key) return args.queries + (Size(row) * Dims::heads + index) * stride;
            const LayerCache cache = layer_cache<Dims>(args.cache, args.capacity, args.place);
            const int slot = (args.start + row) % cache.positions;
            return (is_value ? cache.values : cache.keys) + (Size(index) * cache.positions + slot) * stride;
        }
    };

    /// Pairs 4 quad .. 4 quad + 3 of a head.
    GG_DEVICE static void append_quads(const Args& args, int row, int number, int quad) {
        constexpr bool split = turning == detail::Turning::half_split;
        const int first = split ? 4 * quad : 8 * quad, second = split ? first + half : first + 4;
        const Head head(number);
        const float* const source = head.source(args, row);
        float4 a = load_cg(reinterpret_cast<const float4*>(source + first));
        float4 b = load_cg(reinterpret_cast<const float4*>(source + second));
        if constexpr (turning != detail::Turning::none)
            if (!head.is_value) {
                const Size at = Size(row) * half + 4 * quad;
                const float4 cosine = load_cg(reinterpret_cast<const float4*>(args.cosines + at));
                const float4 sine = load_cg(reinterpret_cast<const float4*>(args.sines + at));
                detail::rotate_pair(a.x, split ? b.x : a.y, cosine.x, sine.x);
                detail::rotate_pair(split ? a.y : a.z, split ? b.y : a.w, cosine.y, sine.y);
                detail::rotate_pair(split ? a.z : b.x, split ? b.z : b.y, cosine.z, sine.z);
                detail::rotate_pair(split ? a.w : b.z, b.w, cosine.w, sine.w);
            }
        unsigned short* const out = head.destination(args, row);
        const uint2 low = encode(a, args.overflows), high = encode(b, args.overflows);
        if constexpr (split) {
            *reinterpret_cast<uint2*>(out + first) = low;
            *reinterpret_cast<uint2*>(out + second) = high;
        } else {
            *reinterpret_cast<uint4*>(out + first) = {low.x, low.y, high.x, high.y};
        }
    }

    GG_DEVICE static uint2 encode(const float4& x, int* overflows) {
        unsigned low[1], high[1];
        HalfOperand::encode(x.x, x.y, low, overflows);
        HalfOperand::encode(x.z, x.w, high, overflows);
        return {low[0], high[0]};
    }

    /// Heads [begin, end) of a row, by all threads.
    GG_DEVICE static void append_heads_of(const Args& args, int row, int begin, int end) {
        float* const tables = reinterpret_cast<float*>(dynamic_shared());
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
        if constexpr (Block::has_rotary) {
            for (int i = static_cast<int>(threadIdx.x); i < half; i += threads) {
                tables[i] = load_cg(args.cosines + Size(row) * half + i);
                tables[half + i] = load_cg(args.sines + Size(row) * half + i);
            }
            __syncthreads();
        }
        for (int head = begin + warp; head < end; head += warps)
            append(args, row, Head(head), tables, tables + (1 + warp) * stride);
    }

    GG_DEVICE static void append(const Args& args, int row, const Head& head, const float* tables, float* x) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        const float* const source = head.source(args, row);
        for (int i = lane; i < stride; i += warp_size) x[i] = i < head_dim ? load_cg(source + i) : 0.0f;
        __syncwarp();
        if (!head.is_value) {
            const HeadPlace place = {head.index, head.is_key, Block::has_rotary ? tables : nullptr,
                                     Block::has_rotary ? tables + half : nullptr};
            transform_head<Dims, Block>(args.weights, place, x, lane);
        }
        unsigned short* const out = head.destination(args, row);
        for (int i = 2 * lane; i < stride; i += 2 * warp_size)
            store_operand<HalfOperand>(out, 0, i, x[i], x[i + 1], args.overflows);
        __syncwarp();
    }
};

}  // namespace gg::cuda
