// Products of many rows on sm_90a: as product.cuh, but weights are decoded into the registers of a warpgroup
// (warpgroup_tile.cuh), whose products run in the background while the next weights are decoded.
//
// A block has two warpgroups, each with parts x 64 weight rows (WarpgroupTiling), and 128 tokens; a step is
// 64 columns. Of 32 columns a lane's operands are 8t to 8t + 7 in a tile, but 2t, 2t + 1, 2t + 8 and 2t + 9
// of each 16 in a warpgroup's product. So tokens are copied with the 16 words of 32 columns transposed, word
// 4t + q to place 4q + t, 4 bytes at a time; that costs nothing (docs/prefill.md).
//
// Bytes moved, from the second-level cache: the tiles once for each 128 rows of X, X once for each block of
// weight rows.
#pragma once

#include "gg/cuda/product.cuh"
#include "gg/cuda/warpgroup.cuh"
#include "gg/cuda/warpgroup_tile.cuh"

namespace gg::cuda {

/// `columns` is K; `tiling_index` one of `warpgroup_tilings`; to be launched as warpgroup_launch().
template <class Format, int columns, class Epilogue, int tiling_index>
struct WarpgroupProduct {
    using Args = ProductArgs;
    using Tile = WarpgroupTile<Format>;

    static constexpr WarpgroupTiling tiling = warpgroup_tilings[tiling_index];
    static constexpr int threads = warpgroup_threads, blocks = tiling.blocks;
    static constexpr int shared_bytes = tiling.shared_bytes(Tile::bytes);

    __device__ static void run(const Args& args) {
        if constexpr (has_warpgroups) compute(args);
    }

  private:
    GG_DEVICE static void compute(const Args& args) {
        extern __shared__ __align__(128) unsigned char memory[];
        launch_next();
        wait_for_previous();
        unsigned char* const shared = memory + (-shared_address(memory) & 1023u);
        const detail::TokenTile place = detail::find_token_tile(args, blockIdx.y, warpgroup_tokens);
        if (place.first >= place.end) return;
        const Copies copies(args, place, blockIdx.x * row_tiles);
        // Warp i of warpgroup w has row tiles 4 (parts w + m) + i of the block.
        const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
        const int mine = warp / 4 * 4 * parts + warp % 4;
        RowUnits units[parts];
#pragma unroll
        for (int m = 0; m < parts; ++m)
            units[m] = read_units(args, place.expert, blockIdx.x * row_tiles + mine + 4 * m, lane);

        float sums[parts][16][4] = {};
        multiply(args, shared, copies, mine, lane, units, sums);
#pragma unroll
        for (int m = 0; m < parts; ++m)
            store(args, place, blockIdx.x * row_tiles + mine + 4 * m, lane, units[m], sums[m]);
    }

    static constexpr int parts = tiling.parts, row_tiles = tiling.block_row_tiles();
    static constexpr int steps = column_tiles(columns), stages = tiling.stages(Tile::bytes);
    static constexpr int ahead = stages - 2;  ///< steps copied ahead: products of the last one may still read
    static constexpr int x_bytes = WarpgroupTiling::activation_bytes;
    static constexpr int stage_bytes = tiling.stage_bytes(Tile::bytes);
    static_assert(stages >= 3, "three steps do not fit in shared memory");
    static_assert(Tile::Operand::planes == 1);

    /// What one thread copies in every step. In place of rows that do not exist the last one is copied, whose
    /// sums nobody stores.
    class Copies {
      public:
        GG_DEVICE Copies(const Args& args, const detail::TokenTile& place, int first_row_tile)
            : tiles_(args.tiles + place.expert * args.expert_bytes) {
            const int thread = threadIdx.x, word = thread % 32, token = thread / 32;
            const int half = word / 16, t = word % 16 / 4, q = word % 4;
            x_to_ = token * 128 + ((half * 4 + q) ^ (token % 8)) * 16 + t * 4;
#pragma unroll
            for (int i = 0; i < x_copies; ++i) {
                const int wanted = place.first + token + 8 * i;
                const int position = wanted < place.end ? wanted : place.end - 1;
                const int row = args.x_rows ? load_cg(args.x_rows + position) : position;
                x_from_[i] = static_cast<unsigned>(row) * (operand_stride(columns) / 2) + word;
            }
#pragma unroll
            for (int i = 0; i < w_copies; ++i) {
                const int flat = thread + i * threads, wanted = first_row_tile + flat / tile_pieces;
                const int row_tile = wanted < Epilogue::row_tiles ? wanted : Epilogue::row_tiles - 1;
                w_from_[i] = static_cast<unsigned>(row_tile) * (steps * tile_pieces) + flat % tile_pieces;
            }
        }
        GG_DEVICE void issue(unsigned char* stage, const Args& args, int step) const {
#pragma unroll
            for (int i = 0; i < x_copies; ++i)
                copy_async_4(stage + x_to_ + i * 1024, args.x + Size{x_from_[i] + step * 32} * 2);
#pragma unroll
            for (int i = 0; i < w_copies; ++i)
                if ((i + 1) * threads <= w_pieces || threadIdx.x + i * threads < w_pieces)
                    copy_async_16(stage + x_bytes + (threadIdx.x + i * threads) * 16,
                                  tiles_ + Size{w_from_[i] + step * tile_pieces} * 16);
        }

      private:
        static constexpr int x_copies = warpgroup_tokens / 8, tile_pieces = Tile::bytes / 16;
        static constexpr int w_pieces = row_tiles * tile_pieces,
                             w_copies = (w_pieces + threads - 1) / threads;
        const unsigned char* tiles_;
        unsigned x_from_[x_copies], w_from_[w_copies];
        int x_to_;
    };

    /// All steps. A batch of products is a block of 32 columns; while it runs, the next one is decoded.
    GG_DEVICE static void multiply(const Args& args, unsigned char* shared, const Copies& copies, int mine,
                                   int lane, const RowUnits (&units)[parts], float (&sums)[parts][16][4]) {
#pragma unroll
        for (int step = 0; step < ahead; ++step) {
            if (step < steps) copies.issue(shared + step * stage_bytes, args, step);
            copy_async_commit();
        }
        Fragment fragments[2][parts];
        int slot = 0, free_slot = ahead;
#pragma unroll 1
        for (int step = 0; step < steps; ++step) {
            copy_async_wait<ahead - 1>();
            copy_engine_fence();
            __syncthreads();  // step's copies are here, and products of step - 2 have ended
            if (step + ahead < steps) copies.issue(shared + free_slot * stage_bytes, args, step + ahead);
            copy_async_commit();
            const unsigned char* stage = shared + slot * stage_bytes;
#pragma unroll
            for (int block = 0; block < 2; ++block) {
                warpgroup_wait<1>();  // the batch before last read these fragments
#pragma unroll
                for (int m = 0; m < parts; ++m)
                    fragments[block][m] =
                        Tile::load(stage + x_bytes + (mine + 4 * m) * Tile::bytes, block, lane, units[m]);
                warpgroup_arrive();
#pragma unroll
                for (int m = 0; m < parts; ++m)
#pragma unroll
                    for (int j = 0; j < 2; ++j) {
                        const unsigned* r = fragments[block][m].r + 4 * j;
                        const unsigned a[4] = {r[0], r[1], r[2], r[3]};
                        warpgroup_multiply<true>(sums[m], a, describe_tokens(stage + 64 * block + 32 * j));
                    }
                warpgroup_commit();
            }
            slot = slot + 1 == stages ? 0 : slot + 1;
            free_slot = free_slot + 1 == stages ? 0 : free_slot + 1;
        }
        warpgroup_wait<0>();
    }

    GG_DEVICE static RowUnits read_units(const Args& args, int expert, int row_tile, int lane) {
        if constexpr (!Tile::scaled) return {0, 0};
        const int tile = row_tile < Epilogue::row_tiles ? row_tile : Epilogue::row_tiles - 1;
        const unsigned char* at =
            args.row_units + (static_cast<Size>(expert) * Epilogue::row_tiles + tile) * tile_rows + lane / 4;
        return {at[0], at[8]};
    }

    GG_DEVICE static void store(const Args& args, const detail::TokenTile& place, int row_tile, int lane,
                                const RowUnits& units, const float (&sums)[16][4]) {
        if (row_tile >= Epilogue::covered_row_tiles) return;
        const auto bias = Epilogue::bias(args, place.expert, row_tile, lane);
        const float low = Tile::unit(units.low), high = Tile::unit(units.high);
#pragma unroll
        for (int n = 0; n < 16; ++n) {
            const float scaled[4] = {sums[n][0] * low, sums[n][1] * low, sums[n][2] * high,
                                     sums[n][3] * high};
            Epilogue::store(args, bias, row_tile, lane, place.first + 8 * n, place.end, scaled);
        }
    }
};

}  // namespace gg::cuda
