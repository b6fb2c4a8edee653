// Products of many rows: Y[r][m] = sum_k X[r][k] W[m][k] on tensor cores, FP32 sums, from the very tiles that
// decoding reads (tile.cuh), decoded in registers. X is an operand buffer (operand.cuh) of operand_stride(K)
// columns; what becomes of Y is the epilogue's affair (product_epilogue.cuh).
//
// A block holds several steps of 64 columns in shared memory, filled by asynchronous copies. There a token's
// 64 columns are 8 pieces of 16 bytes, piece c of an odd token at c ^ 4: the lanes of a quarter warp read
// four neighbouring pieces of two neighbouring tokens, from all banks. A fragment of weights is decoded once
// a warp and multiplies all the warp's tokens. Every sum runs over the columns in ascending order; if warps
// share the columns, each adds every n-th tile, and the n sums are added in the order of the warps.
//
// Grouped: rows offsets[e] to offsets[e + 1] belong to expert e, whose tiles lie at tiles + e * expert_bytes,
// and row r of the product reads row x_rows[r] of X. Blocks find their rows from the offsets in device
// memory; the grid covers what any distribution could need.
//
// Bytes moved, from the second-level cache: the tiles once for each block_tokens() rows, X once for each
// block_row_tiles() row tiles.
#pragma once

#include "gg/cuda/copies.cuh"
#include "gg/cuda/prefill_plan.hpp"
#include "gg/cuda/product_epilogue.cuh"
#include "gg/cuda/tile.cuh"

namespace gg::cuda {

namespace detail {

/// The rows of one block: `first` to `end`, none if they are equal.
struct TokenTile {
    int expert, first, end;
};

/// Where block `slot` finds its rows; called by whole warps.
GG_DEVICE TokenTile find_token_tile(const ProductArgs& args, int slot, int tokens) {
    if (!args.offsets) {
        const int first = slot * tokens;
        return {0, first, first + tokens < args.rows ? first + tokens : args.rows};
    }
    const int lane = threadIdx.x % warp_size;
    int before = 0;  // tiles of the experts before this group of 32
    for (int base = 0; base < args.experts; base += warp_size) {
        int begin = 0, end = 0;
        if (base + lane < args.experts) {
            begin = load_cg(args.offsets + base + lane);
            end = load_cg(args.offsets + base + lane + 1);
        }
        const int tiles = (end - begin + tokens - 1) / tokens;
        int through = tiles;
#pragma unroll
        for (int distance = 1; distance < warp_size; distance *= 2) {
            const int other = __shfl_up_sync(whole_warp, through, distance);
            if (lane >= distance) through += other;
        }
        const unsigned reached = __ballot_sync(whole_warp, before + through > slot);
        if (reached != 0) {
            const int source = __ffs(static_cast<int>(reached)) - 1;
            const int tile = slot - before - __shfl_sync(whole_warp, through - tiles, source);
            const int first = __shfl_sync(whole_warp, begin, source) + tile * tokens;
            const int last = __shfl_sync(whole_warp, end, source);
            return {base + source, first, first + tokens < last ? first + tokens : last};
        }
        before += __shfl_sync(whole_warp, through, warp_size - 1);
    }
    return {0, 0, 0};
}

}  // namespace detail

/// One product. `columns` is K; `tiling_index` one of `tilings`; grid, threads and shared memory are
/// product_launch(). To be launched with at least `blocks` blocks a multiprocessor in its launch bounds.
template <class Format, int columns, class Epilogue, int tiling_index>
struct Product {
    using Args = ProductArgs;
    using Tile = cuda::Tile<Format>;

    static constexpr Tiling tiling = tilings[tiling_index];
    static constexpr int planes = Tile::Operand::planes;
    static constexpr int threads = tiling.threads();
    static constexpr int blocks = tiling.blocks;
    static constexpr int shared_bytes = tiling.shared_bytes(Tile::bytes, planes);

    __device__ static void run(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        launch_next();
        wait_for_previous();
        const detail::TokenTile place = detail::find_token_tile(args, blockIdx.y, tokens);
        if (place.first >= place.end) return;
        const Copies copies(args, place, blockIdx.x * row_tiles_of_block);
        const Warp warp;
        // A warp without rows of W or X still copies for the others.
        const int row_tile = blockIdx.x * row_tiles_of_block + warp.row * warp_row_tiles;
        const int first = place.first + warp.token * 8 * warp_token_tiles;
        const bool idle = row_tile >= Epilogue::row_tiles || first >= place.end;

        float sums[warp_row_tiles][warp_token_tiles][4] = {};
#pragma unroll
        for (int step = 0; step < stages - 1; ++step) {
            if (step < steps) copies.issue(shared + step * stage_bytes, args, step);
            copy_async_commit();
        }
        int slot = 0, free_slot = stages - 1;
#pragma unroll 1
        for (int step = 0; step < steps; ++step) {
            copy_async_wait<stages - 2>();
            __syncthreads();  // step's copies are here, and nobody reads step - 1 any more
            if (step + stages - 1 < steps)
                copies.issue(shared + free_slot * stage_bytes, args, step + stages - 1);
            copy_async_commit();
            if (!idle && exists(step, warp.column)) multiply(shared + slot * stage_bytes, warp, sums);
            free_slot = slot;
            slot = slot + 1 == stages ? 0 : slot + 1;
        }
        if constexpr (tiling.column_warps > 1) {
            add_column_warps(shared, warp, sums);
            if (warp.column > 0) return;
        }
        store(args, place, row_tile, first, warp.lane, sums);
    }

  private:
    static constexpr int warp_row_tiles = tiling.row_tiles, warp_token_tiles = tiling.token_tiles;
    static constexpr int column_warps = tiling.column_warps;
    static constexpr int row_tiles_of_block = tiling.block_row_tiles(), tokens = tiling.block_tokens();
    static constexpr int tiles_across = column_tiles(columns);
    static constexpr int steps = (tiles_across + column_warps - 1) / column_warps;
    static constexpr int stages = tiling.stages(Tile::bytes, planes);
    static constexpr int activation_bytes = tiling.activation_bytes(planes);
    static constexpr int stage_bytes = tiling.stage_bytes(Tile::bytes, planes);
    static constexpr int token_bytes = 128;  ///< of 64 columns
    static_assert(stages >= 2, "two steps do not fit in shared memory");
    static_assert(columns > 0, "a product has columns");

    /// This thread's place in its block.
    struct Warp {
        int lane = threadIdx.x % warp_size;
        int row, token, column;
        GG_DEVICE Warp() {
            const int warp = threadIdx.x / warp_size;
            row = warp % tiling.row_warps;
            token = warp / tiling.row_warps % tiling.token_warps;
            column = warp / (tiling.row_warps * tiling.token_warps);
        }
    };

    /// Whether a step's tile lies within the matrix: the last step may be a part.
    GG_DEVICE static bool exists(int step, int column_tile) {
        return tiles_across % column_warps == 0 || step * column_warps + column_tile < tiles_across;
    }

    /// The pieces of 16 bytes that one thread copies in every step. In place of rows that do not exist the
    /// last one is copied, whose sums nobody stores.
    class Copies {
      public:
        GG_DEVICE Copies(const Args& args, const detail::TokenTile& place, int first_row_tile)
            : tiles_(args.tiles + place.expert * args.expert_bytes) {
            const int piece = threadIdx.x % pieces_of_token, token = threadIdx.x / pieces_of_token;
            x_to_ = (piece / 8 * tokens + token) * token_bytes + ((piece % 8) ^ (token % 2 * 4)) * 16;
#pragma unroll
            for (int i = 0; i < x_copies; ++i) {
                const int wanted = place.first + token + i * tokens_at_once;
                const int position = wanted < place.end ? wanted : place.end - 1;
                const int row = args.x_rows ? load_cg(args.x_rows + position) : position;
                x_from_[i] = static_cast<unsigned>(row) * (operand_stride(columns) / 8) + piece;
            }
#pragma unroll
            for (int i = 0; i < tile_copies; ++i) {
                const int flat = threadIdx.x + i * threads;
                const int wanted = first_row_tile + flat / pieces_of_row_tile;
                const int row_tile = wanted < Epilogue::row_tiles ? wanted : Epilogue::row_tiles - 1;
                tile_from_[i] = static_cast<unsigned>(row_tile) * (tiles_across * pieces_of_tile) +
                                flat % pieces_of_row_tile;
            }
        }

        /// Starts copying one step.
        GG_DEVICE void issue(unsigned char* stage, const Args& args, int step) const {
            if (exists(step, threadIdx.x % pieces_of_token / 8)) {
#pragma unroll
                for (int p = 0; p < planes; ++p)
#pragma unroll
                    for (int i = 0; i < x_copies; ++i)
                        copy_async_16(
                            stage + p * plane_bytes + x_to_ + i * tokens_at_once * token_bytes,
                            args.x + p * args.x_plane + Size{x_from_[i] + step * pieces_of_token} * 8);
            }
#pragma unroll
            for (int i = 0; i < tile_copies; ++i) {
                const int flat = threadIdx.x + i * threads;
                if (flat < pieces_of_tiles && exists(step, flat % pieces_of_row_tile / pieces_of_tile))
                    copy_async_16(stage + activation_bytes + flat * 16,
                                  tiles_ + Size{tile_from_[i] + step * pieces_of_row_tile} * 16);
            }
        }

      private:
        static constexpr int pieces_of_token = 8 * column_warps;          ///< in a step
        static constexpr int tokens_at_once = threads / pieces_of_token;  ///< copied by one instruction
        static constexpr int x_copies = tokens / tokens_at_once;          ///< of a thread, a plane and step
        static constexpr int plane_bytes = activation_bytes / planes;
        static constexpr int pieces_of_tile = Tile::bytes / 16;
        static constexpr int pieces_of_row_tile = column_warps * pieces_of_tile;  ///< in a step
        static constexpr int pieces_of_tiles = row_tiles_of_block * pieces_of_row_tile;
        static constexpr int tile_copies = (pieces_of_tiles + threads - 1) / threads;
        static_assert(tokens % tokens_at_once == 0 && tokens_at_once % 2 == 0);

        const unsigned char* tiles_;
        unsigned x_from_[x_copies], tile_from_[tile_copies];  ///< in pieces, of step 0
        int x_to_;
    };

    /// sums += one step.
    GG_DEVICE static void multiply(const unsigned char* stage, const Warp& warp,
                                   float (&sums)[warp_row_tiles][warp_token_tiles][4]) {
        const unsigned char* tiles =
            stage + activation_bytes + (warp.row * warp_row_tiles * column_warps + warp.column) * Tile::bytes;
        const int g = warp.lane / 4, t = warp.lane % 4;
        const unsigned char* x =
            stage + (warp.column * tokens + warp.token * 8 * warp_token_tiles + g) * token_bytes + t * 16;
#pragma unroll 1
        for (int block = 0; block < 2; ++block) {
            const unsigned char* pieces = x + ((block ^ g) & 1) * 64;
            Fragment fragments[warp_row_tiles];
            RowScales scales[warp_row_tiles];
#pragma unroll
            for (int r = 0; r < warp_row_tiles; ++r) {
                fragments[r] = Tile::load(tiles + r * column_warps * Tile::bytes, block, warp.lane);
                scales[r] = Tile::scales(tiles + r * column_warps * Tile::bytes, block, warp.lane);
            }
#pragma unroll
            for (int n = 0; n < warp_token_tiles; ++n) {
                uint4 activations[planes];
#pragma unroll
                for (int p = 0; p < planes; ++p)
                    activations[p] = *reinterpret_cast<const uint4*>(
                        pieces + p * (activation_bytes / planes) + n * 8 * token_bytes);
#pragma unroll
                for (int r = 0; r < warp_row_tiles; ++r)
                    multiply_block<Tile>(sums[r][n], fragments[r], scales[r], activations);
            }
        }
    }

    /// Adds to the first column warp's sums those of the others, in order, through shared memory.
    GG_DEVICE static void add_column_warps(unsigned char* shared, const Warp& warp,
                                           float (&sums)[warp_row_tiles][warp_token_tiles][4]) {
        constexpr int sets = tiling.row_warps * tiling.token_warps,
                      pieces = warp_row_tiles * warp_token_tiles;
        static_assert((column_warps - 1) * sets * pieces * 512 <= shared_bytes);
        const int set = warp.token * tiling.row_warps + warp.row;
        float4* exchange = reinterpret_cast<float4*>(shared);
        copy_async_wait<0>();
        __syncthreads();
        if (warp.column > 0)
#pragma unroll
            for (int i = 0; i < pieces; ++i) {
                const float(&c)[4] = sums[i / warp_token_tiles][i % warp_token_tiles];
                exchange[(((warp.column - 1) * sets + set) * pieces + i) * warp_size + warp.lane] =
                    make_float4(c[0], c[1], c[2], c[3]);
            }
        __syncthreads();
        if (warp.column > 0) return;
#pragma unroll
        for (int i = 0; i < pieces; ++i) {
            float(&c)[4] = sums[i / warp_token_tiles][i % warp_token_tiles];
#pragma unroll
            for (int other = 0; other < column_warps - 1; ++other) {
                const float4 more = exchange[((other * sets + set) * pieces + i) * warp_size + warp.lane];
                c[0] += more.x;
                c[1] += more.y;
                c[2] += more.z;
                c[3] += more.w;
            }
        }
    }

    /// Hands the sums of the warp's tiles to the epilogue.
    GG_DEVICE static void store(const Args& args, const detail::TokenTile& place, int row_tile, int first,
                                int lane, const float (&sums)[warp_row_tiles][warp_token_tiles][4]) {
#pragma unroll
        for (int r = 0; r < warp_row_tiles; ++r) {
            if (row_tile + r >= Epilogue::covered_row_tiles) break;
            const auto bias = Epilogue::bias(args, place.expert, row_tile + r, lane);
#pragma unroll
            for (int n = 0; n < warp_token_tiles; ++n)
                Epilogue::store(args, bias, row_tile + r, lane, first + 8 * n, place.end, sums[r][n]);
        }
    }
};

}  // namespace gg::cuda
