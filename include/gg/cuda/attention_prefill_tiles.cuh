// What the warps of a block of WarpgroupPrefillAttention share: which rows of Q and which tiles of keys are
// the block's, and the ring of stages in shared memory through which one warpgroup copies those tiles ahead.
// A stage is a tile of keys and one of values, each in planes of 64 elements: [head_dim / 64][keys] of 128
// bytes, as products of warpgroups take them (warpgroup.cuh). A barrier a stage says when it is full, one
// when it is empty.
#pragma once

#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/attention_primitives.cuh"
#include "gg/cuda/warpgroup.cuh"

namespace gg::cuda {

/// A block's part of the work, the same in all its warps. Args is PrefillAttentionArgs of the weights.
template <class Dims, class Args, WarpgroupPrefillShape shape>
struct WarpgroupTiles {
    static constexpr int head_dim = Dims::head_dim, group = Dims::heads / Dims::kv_heads;
    static constexpr int warpgroups = shape.warpgroups, keys = shape.keys, stages = shape.stages;
    static constexpr int query_rows = shape.query_rows();
    static constexpr int query_bytes = warpgroup_rows * head_dim * 2;  ///< of a warpgroup
    static constexpr int tile_bytes = keys * head_dim * 2, stage_bytes = 2 * tile_bytes;
    /// Queries, stages, and room to begin at a multiple of 1024.
    static constexpr int shared_bytes = warpgroups * query_bytes + stages * stage_bytes + 1024;

    struct Barriers {
        Size full[stages], empty[stages];

        GG_DEVICE void init() {
#pragma unroll
            for (int i = 0; i < stages; ++i) {
                barrier_init(full + i, 4);
                barrier_init(empty + i, 4 * warpgroups);
            }
            barrier_init_fence();
        }
    };

    /// A place in the ring, and how often it came round, modulo 2.
    struct Stage {
        int slot = 0;
        unsigned parity = 0;
        GG_DEVICE void next() {
            if (++slot == stages) slot = 0, parity ^= 1u;
        }
    };

    const Args& args;
    Barriers& barriers;
    unsigned char* const shared;
    const int lane, warp, kv_head;
    const int rows, first_row;        ///< of Q: all, and where the block begins
    const int first_tile, last_tile;  ///< that the block's rows see

    GG_DEVICE WarpgroupTiles(const Args& args, Barriers& barriers)
        : args(args),
          barriers(barriers),
          shared(dynamic_shared() + (-shared_address(dynamic_shared()) & 1023u)),
          lane(static_cast<int>(threadIdx.x) % warp_size),
          warp(__shfl_sync(whole_warp, static_cast<int>(threadIdx.x) / warp_size, 0)),
          kv_head(static_cast<int>(blockIdx.x) % Dims::kv_heads),
          rows(args.rows * group),
          first_row(query_rows * ((rows - 1) / query_rows - static_cast<int>(blockIdx.x) / Dims::kv_heads)),
          first_tile(first_tile_of(args.place.window, position(first_row))),
          last_tile(position(first_row + query_rows < rows ? first_row + query_rows - 1 : rows - 1) / keys) {}

    /// Of a row of Q.
    GG_DEVICE int position(int row) const {
        return args.start + row / group;
    }
    GG_DEVICE static int first_tile_of(int window, int begin) {
        return window > 0 && begin >= window ? (begin - window + 1) / keys : 0;
    }
    GG_DEVICE unsigned char* stage(int slot) const {
        return shared + warpgroups * query_bytes + slot * stage_bytes;
    }
    /// Where 16 bytes, number `chunk` of a row, lie in planes of `plane_rows`.
    GG_DEVICE static int place(int plane_rows, int row, int chunk) {
        return chunk / 8 * (plane_rows * 128) + row * 128 + (chunk % 8 ^ row % 8) * 16;
    }

    /// One warpgroup's work. A tile is announced when `behind` more have been asked for: products of a tile
    /// wait for the next one, so the place that those wait for must come free without the tile.
    GG_DEVICE void copy() const {
        static_assert(stages > 2);
        constexpr int behind = stages > 3 ? 2 : 1;
        const LayerCache cache =
            layer_cache<Dims>(const_cast<unsigned char*>(args.cache), args.capacity, args.place);
        Stage to, arrived;
#pragma unroll 1
        for (int tile = first_tile; tile <= last_tile + behind; ++tile) {
            if (tile <= last_tile) {
                if (tile >= first_tile + stages) barrier_wait(barriers.empty + to.slot, to.parity ^ 1u);
                for (int key = 0; key < keys; key += 64) copy_keys(cache, tile * keys + key, to.slot, key);
                to.next();
            }
            copy_async_commit();
            if (tile < first_tile + behind) continue;
            copy_async_wait<behind>();
            copy_engine_fence();
            __syncwarp();
            if (lane == 0) barrier_arrive(barriers.full + arrived.slot);
            arrived.next();
        }
    }

    /// 64 keys from position `base` on, which are neighbours in the cache, to rows from `row` on of a stage.
    /// Positions after the last row's have never been written, and become 0.
    GG_DEVICE void copy_keys(const LayerCache& cache, int base, int slot, int row) const {
        constexpr int chunks = head_dim / 8;
        const int written = args.start + args.rows - base, thread = warp % 4 * warp_size + lane;
        const Size from =
            (Size(kv_head) * cache.positions + static_cast<unsigned>(base % cache.positions)) * head_dim +
            8 * thread;
        unsigned char* const to = stage(slot);
#pragma unroll 4
        for (int i = 0; i < chunks / 2; ++i) {
            const int flat = i * warpgroup_size + thread, key = flat / chunks;
            const int at = place(keys, row + key, flat % chunks);
            const bool valid = key < written;
            copy_async_16_or_zero(to + at, cache.keys + from + i * warpgroup_size * 8, valid);
            copy_async_16_or_zero(to + tile_bytes + at, cache.values + from + i * warpgroup_size * 8, valid);
        }
    }
};

}  // namespace gg::cuda
