// The product of a matrix of tiles with 1 to 8 rows of activations, as the stages of decoding use it: weights
// stream through each warp's ring (weight_ring.cuh) into tensor cores, sums over a warp's, then a block's,
// tiles are added in a fixed order, and the stage says what becomes of a finished sum.
//
// A Stream says in which order tiles are multiplied:
//   Place at(int tile)          where the tile with this number is: has `row`, the row of tiles, counted
//                               on over all matrices
//   in_row(Place)               tiles from here to the end of this row of one matrix, which has `k` one up
//   each advance(Place&, count)      past as many of these columns()                   tiles in a row const
//   unsigned char* address(Place) int contiguous(Place)       tiles from here that lie one behind the other
//   in memory
// Activations say what operand B is:
//   load(const Place&, int block, uint4 (&x)[planes])
//                               columns 8t to 8t + 7 of 32-column block `block` of the tile's columns, of
//                               row min(g, rows - 1)
//   ahead                       whether to load a tile's activations before the tile before it is used
// Bytes moved: the matrix once; activations as the stage has them.
#pragma once

#include "gg/cuda/stage_shapes.hpp"
#include "gg/cuda/tile.cuh"
#include "gg/cuda/weight_ring.cuh"

namespace gg::cuda {

/// Walks the tiles of a warp: its share of each round of its block's run.
struct WarpTiles {
    int tile, end;          ///< of this round
    int round, next_round;  ///< tiles where this round and the next one begin
    int block_end, round_tiles;

    GG_DEVICE static WarpTiles begin(int block_begin, int block_end, int round_tiles, int warp, int warps) {
        WarpTiles w{0, 0, 0, block_begin, block_end, round_tiles};
        w.enter_round(warp, warps);
        return w;
    }
    /// Goes to the next round; returns whether there was one.
    GG_DEVICE bool enter_round(int warp, int warps) {
        round = next_round;
        const int left = block_end - round, count = left < round_tiles ? left : round_tiles;
        tile = round + share_begin(count, warp, warps);
        end = round + share_begin(count, warp + 1, warps);
        next_round = round + count;
        return count > 0;
    }
};

/// Shared memory of a matvec stage with `plan`: the ring, sums, then activations.
template <class Tile, class Shape>
struct Matvec {
    static constexpr MatvecPlan plan = Shape::plan;
    static constexpr int rows = Shape::rows;
    static_assert(plan.depth >= 2, "the stage's activations do not fit into this chip's shared memory");
    static constexpr int piece_bytes = plan.chunk_tiles * Tile::bytes;

    struct Shared {
        Size barriers[plan.warps][plan.depth];
    };

    unsigned char* ring_memory;
    float* sums;  ///< [round_rows + warps][16][rows]
    int warp, lane;

    GG_DEVICE Matvec(unsigned char* shared)
        : ring_memory(shared),
          sums(reinterpret_cast<float*>(shared + plan.ring_bytes)),
          warp(static_cast<int>(threadIdx.x) / warp_size),
          lane(static_cast<int>(threadIdx.x) % warp_size) {}

    /// Where activations lie in the stage's shared memory.
    GG_DEVICE static unsigned char* activations(unsigned char* shared) {
        return shared + plan.ring_bytes + plan.sum_bytes;
    }

    /// The warp's ring and what it fetches next.
    template <class Stream>
    struct Feed {
        WeightRing<piece_bytes, plan.depth> ring;
        const Stream& stream;
        WarpTiles tiles;
        int warp;

        /// Fetches nothing yet.
        GG_DEVICE Feed(const Matvec& m, Shared& shared, const Stream& s)
            : ring(m.ring_memory + m.warp * plan.depth * piece_bytes, shared.barriers[m.warp], m.lane),
              stream(s),
              tiles{},
              warp(m.warp) {}
        GG_DEVICE Feed(const Matvec& m, Shared& shared, const Stream& s, int block_begin, int block_end,
                       int round_tiles)
            : Feed(m, shared, s) {
            start(block_begin, block_end, round_tiles);
        }
        /// Begins to fetch the warp's share of the block's run.
        GG_DEVICE void start(int block_begin, int block_end, int round_tiles) {
            tiles = WarpTiles::begin(block_begin, block_end, round_tiles, warp, plan.warps);
#pragma unroll 1
            for (int i = 0; i < plan.depth; ++i) fetch();
        }
        GG_DEVICE void fetch() {
            while (tiles.tile >= tiles.end)
                if (!tiles.enter_round(warp, plan.warps)) return ring.skip();
            const auto place = stream.at(tiles.tile);
            const int count = piece(stream, place, tiles);
            ring.fetch(stream.address(place), count * Tile::bytes);
            tiles.tile += count;
        }
    };

    /// A block's sums after a round.
    template <class Stream>
    struct Sum {
        const float* sums;
        const Stream& stream;
        int begin, count;  ///< tiles of the round
        int first_row;     ///< row tile that it begins in

        /// Row i of a row tile and activation n: the warps' parts in their order.
        GG_DEVICE float operator()(int row_tile, int i, int n) const {
            const int row_begin = row_tile * stream.columns() - begin, row_end = row_begin + stream.columns();
            const int first = row_begin > 0 ? row_begin : 0, last = row_end < count ? row_end : count;
            const int to = share_of(count, last - 1, plan.warps);
            float sum = 0.0f;
            for (int w = share_of(count, first, plan.warps); w <= to; ++w)
                if (share_begin(count, w, plan.warps) < share_begin(count, w + 1, plan.warps))
                    sum += sums[((row_tile - first_row + w) * 16 + i) * rows + n];
            return sum;
        }
    };

    /// Tiles in the piece that begins here.
    template <class Stream, class Place>
    GG_DEVICE static int piece(const Stream& stream, const Place& place, const WarpTiles& tiles) {
        int count = tiles.end - tiles.tile;
        const int together = stream.contiguous(place);
        count = count < together ? count : together;
        return count < plan.chunk_tiles ? count : plan.chunk_tiles;
    }

    /// Multiplies the block's run. `finish(first_row, row_count, sum)` is called by all threads after each
    /// round, for the row tiles [first_row, first_row + row_count) that it touched; sum(row_tile, i, n) is
    /// the block's sum for row i of a row tile and activation n.
    template <class Stream, class Activations, class Finish>
    GG_DEVICE void run(Feed<Stream>& feed, const Stream& stream, const Activations& activations,
                       int block_begin, int block_end, int round_tiles, const Finish& finish) {
        WarpTiles tiles = WarpTiles::begin(block_begin, block_end, round_tiles, warp, plan.warps);
        while (tiles.next_round > tiles.round) {
            const int first_row = stream.at(tiles.round).row;
            if (tiles.tile < tiles.end) multiply_round(feed, stream, activations, tiles, first_row);
            __syncthreads();
            const int last_row = stream.at(tiles.next_round - 1).row;
            const int begin = tiles.round, count = tiles.next_round - tiles.round;
            finish(first_row, last_row - first_row + 1, Sum<Stream>{sums, stream, begin, count, first_row});
            if (!tiles.enter_round(warp, plan.warps)) break;
            __syncthreads();
        }
    }

  private:
    template <class Stream, class Activations>
    GG_DEVICE void multiply_round(Feed<Stream>& feed, const Stream& stream, const Activations& activations,
                                  WarpTiles& tiles, int first_row) {
        auto place = stream.at(tiles.tile);
        float total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        int left = 0;  // tiles of the piece
        const unsigned char* weights = nullptr;
        while (tiles.tile < tiles.end) {
            if (left == 0) {
                left = piece(stream, place, tiles);
                weights = feed.ring.wait();
            }
            const int in_row = stream.in_row(place), count = left < in_row ? left : in_row;
            multiply_tiles(total, weights, activations, place, count);
            weights += count * Tile::bytes;
            tiles.tile += count;
            left -= count;
            if (left == 0) {
                feed.ring.release();
                feed.fetch();
            }
            const int row = place.row;
            stream.advance(place, count);
            if (place.row != row || tiles.tile == tiles.end) {
                store(total, row - first_row);
                total[0] = total[1] = total[2] = total[3] = 0.0f;
            }
        }
    }

    /// Tiles of one row of one matrix, one behind the other.
    template <class Activations, class Place>
    GG_DEVICE void multiply_tiles(float (&total)[4], const unsigned char* weights,
                                  const Activations& activations, Place place, int count) {
        constexpr int planes = Tile::Operand::planes;
#pragma unroll 2
        for (int i = 0; i < count; ++i) {
            uint4 x[2][planes];
            activations.load(place, 0, x[0]);
            activations.load(place, 1, x[1]);
#pragma unroll
            for (int b = 0; b < 2; ++b)
                multiply_block<Tile>(total, Tile::load(weights, b, lane), Tile::scales(weights, b, lane),
                                     x[b]);
            weights += Tile::bytes;
            ++place.k;
        }
    }

    /// Leaves a warp's sums of one row tile. Row tiles and warps both only grow along a round, so their sum
    /// is a place of its own.
    GG_DEVICE void store(const float (&total)[4], int local_row) {
        const int g = lane / 4, n = 2 * (lane % 4);
        float* to = sums + (local_row + warp) * 16 * rows;
        if (n < rows) {
            to[g * rows + n] = total[0];
            to[(g + 8) * rows + n] = total[2];
        }
        if (n + 1 < rows) {
            to[g * rows + n + 1] = total[1];
            to[(g + 8) * rows + n + 1] = total[3];
        }
    }
};

/// One matrix: rows of `columns` tiles.
template <int column_tiles_, int tile_bytes>
struct DenseStream {
    struct Place {
        int row, k;
    };
    const unsigned char* tiles;

    GG_DEVICE static constexpr int columns() { return column_tiles_; }
    GG_DEVICE Place at(int tile) const { return {tile / column_tiles_, tile % column_tiles_}; }
    GG_DEVICE int in_row(const Place& p) const { return column_tiles_ - p.k; }
    GG_DEVICE void advance(Place& p, int count) const {
        p.k += count;
        if (p.k == column_tiles_) {
            p.k = 0;
            ++p.row;
        }
    }
    GG_DEVICE const unsigned char* address(const Place& p) const {
        return tiles + (Size(p.row) * column_tiles_ + p.k) * tile_bytes;
    }
    GG_DEVICE int contiguous(const Place&) const { return 1 << 30; }
};

/// Activations in shared memory: [planes][rows][stride], 16-byte reads of eight rows free of bank conflicts.
template <class Operand, int rows, int width>
struct SharedActivations {
    static constexpr bool ahead = false;
    static constexpr int stride = shared_stride(rows, width);
    static constexpr int plane = rows * stride;
    static constexpr int bytes = shared_activation_bytes(Operand::planes, rows, width);

    const unsigned short* lane_base;

    GG_DEVICE SharedActivations(const unsigned short* base, int lane, int used_rows) {
        const int g = lane / 4, row = g < used_rows ? g : used_rows - 1;
        lane_base = base + row * stride + 8 * (lane % 4);
    }
    template <class Place>
    GG_DEVICE void load(const Place& place, int block, uint4 (&x)[Operand::planes]) const {
#pragma unroll
        for (int p = 0; p < Operand::planes; ++p)
            x[p] = *reinterpret_cast<const uint4*>(lane_base + p * plane + place.k * 64 + 32 * block);
    }
};

/// Activations of one row that an earlier kernel of the chain wrote,
/// [planes][matrices][operand_stride(width)], copied to shared memory: there every tile's are at hand, which
/// from device memory take longer to come than a tile takes to multiply.
template <class Operand, int width, int matrices = 1>
struct CopiedActivations {
    static constexpr bool ahead = false;
    static constexpr int stride = operand_stride(width), plane = matrices * stride;
    static constexpr int bytes = copied_activation_bytes(Operand::planes, 1, width, matrices);

    const unsigned short* lane_base;

    /// All threads of the block call it.
    GG_DEVICE CopiedActivations(const unsigned short* from, unsigned char* shared, int lane, int threads) {
        auto* to = reinterpret_cast<uint4*>(shared);
        for (int i = static_cast<int>(threadIdx.x); i < bytes / 16; i += threads)
            to[i] = load_cg(reinterpret_cast<const uint4*>(from) + i);
        __syncthreads();
        lane_base = reinterpret_cast<const unsigned short*>(shared) + 8 * (lane % 4);
    }
    template <class Place>
    GG_DEVICE void load(const Place& place, int block, uint4 (&x)[Operand::planes]) const {
        const unsigned short* from = lane_base + place.k * 64 + 32 * block;
        if constexpr (matrices > 1) from += place.expert * stride;
#pragma unroll
        for (int p = 0; p < Operand::planes; ++p) x[p] = *reinterpret_cast<const uint4*>(from + p * plane);
    }
};

/// Activations in device memory that an earlier kernel of the chain wrote: [planes][rows][stride].
template <class Operand, int rows, int width>
struct ChainActivations {
    static constexpr bool ahead = true;
    static constexpr int stride = operand_stride(width);
    static constexpr int plane = rows * stride;

    const unsigned short* lane_base;

    GG_DEVICE ChainActivations(const unsigned short* base, int lane, int used_rows) {
        const int g = lane / 4, row = g < used_rows ? g : used_rows - 1;
        lane_base = base + row * stride + 8 * (lane % 4);
    }
    template <class Place>
    GG_DEVICE void load(const Place& place, int block, uint4 (&x)[Operand::planes]) const {
#pragma unroll
        for (int p = 0; p < Operand::planes; ++p)
            x[p] = load_cg(reinterpret_cast<const uint4*>(lane_base + p * plane + place.k * 64 + 32 * block));
    }
};

}  // namespace gg::cuda
