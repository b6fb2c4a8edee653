// PrefillAttention: attention of consecutive rows of one sequence over the cached keys, their own among them.
//
//   x_ij = q_i . k_j log2(e) / sqrt(head_dim),  m_i = max_j x_ij,  p_ij = 2^(x_ij - m_i)
//   out_i = sum_j p_ij v_j / (sum_j p_ij + 2^(sink log2(e) - m_i)),  over j <= i, j > i - window
//
// A block has 64 or 128 rows of one query head, a warp 16 or 32 of them; keys pass in tiles of 64 positions
// (32 for wide heads), copied to shared memory in the background while the tile before is multiplied. Tiles
// are aligned to absolute positions and a masked key leaves no trace, so a row's bits do not depend on the
// chunk that it came in. Tiles outside the window are not read. Blocks with most keys start first, and those
// of the heads of one key head side by side, so that tiles come from the second-level cache.
// p is FP16 (weight_exponent), everything else FP32 (attention_softmax.cuh). Source: Dao, "FlashAttention-2",
// 2023.
#pragma once

#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/attention_softmax.cuh"
#include "gg/cuda/head_transform.cuh"

namespace gg::cuda {

/// Launched with prefill_blocks(heads, head_dim, rows) blocks. Operand is what the output product takes.
template <class Dims, class Block, class Operand>
struct PrefillAttention {
    using Args = PrefillAttentionArgs<typename Block::template Weights<CudaStore>>;

    static constexpr int warps = 4;
    static constexpr int threads = warps * warp_size;
    static constexpr int head_dim = Dims::head_dim, stride = head_stride(head_dim);
    static constexpr int dim = (head_dim + 15) / 16 * 16;
    static constexpr int query_rows = prefill_query_rows(head_dim);
    static constexpr int parts = query_rows / (16 * warps);  ///< of 16 rows, of a warp
    static constexpr int keys = dim <= 128 ? 64 : 32;        ///< of a tile
    static constexpr int pitch = dim + 8;  ///< elements of a row in shared memory: no bank conflicts
    static constexpr int tile = keys * pitch;
    static constexpr int shared_bytes = (query_rows * pitch + 4 * tile) * 2;
    static constexpr int residency = dim <= 128 ? 2 : 1;  ///< blocks that share a multiprocessor
    static constexpr bool queries_in_registers = dim <= 128;

    GG_DEVICE static void run(const Args& args) {
        wait_for_previous();
        PrefillAttention warp(args);
        warp.attend();
        warp.store();
    }

  private:
    const Args& args_;
    unsigned short* const shared_;  ///< queries, then two stages of keys and values
    const int lane_, warp_, head_;
    const int first_row_, rows_;  ///< of the block
    const int first_, last_;      ///< positions of the warp's rows
    const LayerCache cache_;
    float out_[parts][dim / 8][4] = {};
    OnlineSoftmax<head_dim> softmax_[parts];
    unsigned query_[parts][queries_in_registers ? dim / 16 : 1][4];

    GG_DEVICE explicit PrefillAttention(const Args& args)
        : args_(args),
          shared_(reinterpret_cast<unsigned short*>(dynamic_shared())),
          lane_(static_cast<int>(threadIdx.x) % warp_size),
          warp_(static_cast<int>(threadIdx.x) / warp_size),
          head_(static_cast<int>(blockIdx.x) % Dims::heads),
          first_row_(query_rows *
                     ((args.rows - 1) / query_rows - static_cast<int>(blockIdx.x) / Dims::heads)),
          rows_(args.rows - first_row_ < query_rows ? args.rows - first_row_ : query_rows),
          first_(args.start + first_row_ + 16 * parts * warp_),
          last_(first_ + 16 * parts - 1),
          cache_(layer_cache<Dims>(const_cast<unsigned char*>(args.cache), args.capacity, args.place)) {}

    GG_DEVICE void attend() {
        const int window = args_.place.window, begin = args_.start + first_row_;
        const int first_tile = window > 0 && begin >= window ? (begin - window + 1) / keys : 0;
        const int last_tile = (begin + rows_ - 1) / keys;
        copy_queries();
        copy_tile(first_tile, 0);
        copy_async_commit();
        for (int t = first_tile; t <= last_tile; ++t) {
            const int stage = (t - first_tile) % 2;
            copy_async_wait<0>();
            __syncthreads();  // the tile is there, and nobody reads the other stage any more
            if (t == first_tile) load_queries();
            if (t < last_tile) copy_tile(t + 1, 1 - stage);
            copy_async_commit();
            const int base = t * keys;
            const bool seen =
                base <= last_ && first_ < begin + rows_ && (window == 0 || base + keys - 1 > first_ - window);
            const bool whole = base + keys - 1 <= first_ && (window == 0 || base > last_ - window);
            if (seen) multiply(base, stage, whole);
        }
    }

    GG_DEVICE void copy_queries() {
        const int chunks = dim / 8, count = query_rows * chunks;
        for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) {
            const int row = i / chunks, chunk = i % chunks;
            const bool valid = row < rows_ && chunk < stride / 8;
            const Size at = (Size(first_row_ + row) * Dims::heads + head_) * stride + 8 * chunk;
            copy_async_16_or_zero(shared_ + row * pitch + 8 * chunk, args_.queries + (valid ? at : 0), valid);
        }
    }

    /// Positions after the last row's have never been written, and become 0.
    GG_DEVICE void copy_tile(int t, int stage) {
        const int chunks = dim / 8, count = keys * chunks, base = t * keys,
                  written = args_.start + args_.rows;
        const Size slot = Size(head_ / (Dims::heads / Dims::kv_heads)) * cache_.positions +
                          static_cast<unsigned>(base % cache_.positions);
        for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) {
            const int key = i / chunks, chunk = i % chunks;
            const bool valid = base + key < written && chunk < stride / 8;
            const Size at = valid ? (slot + key) * stride + 8 * chunk : 0;
            unsigned short* const to = keys_of(stage) + key * pitch + 8 * chunk;
            copy_async_16_or_zero(to, cache_.keys + at, valid);
            copy_async_16_or_zero(to + tile, cache_.values + at, valid);
        }
    }

    GG_DEVICE unsigned short* keys_of(int stage) const {
        return shared_ + query_rows * pitch + 2 * stage * tile;
    }

    GG_DEVICE void load_query(unsigned (&q)[4], int part, int k) const {
        const int row = (warp_ * parts + part) * 16 + lane_ % 16;
        load_matrices(q, shared_ + row * pitch + 16 * k + lane_ / 16 * 8);
    }

    GG_DEVICE void load_queries() {
        if constexpr (queries_in_registers) {
#pragma unroll
            for (int part = 0; part < parts; ++part)
#pragma unroll
                for (int k = 0; k < dim / 16; ++k) load_query(query_[part][k], part, k);
        }
    }

    GG_DEVICE void multiply(int base, int stage, bool whole) {
        const unsigned short* const k_tile = keys_of(stage);
        float x[parts][keys / 8][4] = {};
#pragma unroll
        for (int k = 0; k < dim / 16; ++k) {
            if constexpr (!queries_in_registers)
#pragma unroll
                for (int part = 0; part < parts; ++part) load_query(query_[part][0], part, k);
#pragma unroll
            for (int n = 0; n < keys / 16; ++n) {
                unsigned b[4];
                const int key = 16 * n + lane_ / 16 * 8 + lane_ % 8;
                load_matrices(b, k_tile + key * pitch + 16 * k + lane_ / 8 % 2 * 8);
#pragma unroll
                for (int part = 0; part < parts; ++part) {
                    const unsigned(&q)[4] = query_[part][queries_in_registers ? k : 0];
                    multiply_half(x[part][2 * n], q[0], q[1], q[2], q[3], b[0], b[1]);
                    multiply_half(x[part][2 * n + 1], q[0], q[1], q[2], q[3], b[2], b[3]);
                }
            }
        }
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            const int row = first_ + 16 * part + lane_ / 4;
            if (!whole) mask_scores(x[part], base, {row, row + 8}, args_.place.window);
            float factor[2];
            softmax_[part].weigh(x[part], factor);
            scale_rows(out_[part], factor);
        }
        add_values(x, k_tile + tile);
    }

    GG_DEVICE void add_values(const float (&p)[parts][keys / 8][4], const unsigned short* v_tile) {
#pragma unroll
        for (int k = 0; k < keys / 16; ++k) {
            unsigned a[parts][4];
#pragma unroll
            for (int part = 0; part < parts; ++part) pack_weights(a[part], p[part], k);
#pragma unroll
            for (int n = 0; n < dim / 16; ++n) {
                unsigned b[4];
                load_matrices_transposed(b, v_tile + (16 * k + lane_ % 16) * pitch + 16 * n + lane_ / 16 * 8);
#pragma unroll
                for (int part = 0; part < parts; ++part) {
                    multiply_half(out_[part][2 * n], a[part][0], a[part][1], a[part][2], a[part][3], b[0],
                                  b[1]);
                    multiply_half(out_[part][2 * n + 1], a[part][0], a[part][1], a[part][2], a[part][3], b[2],
                                  b[3]);
                }
            }
        }
    }

    GG_DEVICE void store() {
        constexpr int width = Dims::heads * head_dim, out_stride = operand_stride(width);
        const Size plane = Size(args_.rows) * out_stride;
        unsigned short* const out = args_.out + Size(first_row_) * out_stride;
#pragma unroll
        for (int part = 0; part < parts; ++part)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int row = (warp_ * parts + part) * 16 + 8 * h + lane_ / 4;
                float sink = 0.0f;
                if constexpr (Block::has_sinks) sink = args_.weights.sink[head_];
                const float factor = softmax_[part].template quotient<Block::has_sinks>(h, sink);
                if (row >= rows_) continue;
#pragma unroll
                for (int n = 0; n < dim / 8; ++n)
                    store_head_pair<Operand, head_dim>(out + Size(row) * out_stride, plane, head_,
                                                       8 * n + lane_ % 4 * 2, out_[part][n][2 * h] * factor,
                                                       out_[part][n][2 * h + 1] * factor, args_.overflows);
            }
        if (head_ == Dims::heads - 1)
            for (int row = 0; row < rows_; ++row)
                zero_padding<Operand>(out + Size(row) * out_stride, plane, width);
    }
};

}  // namespace gg::cuda
