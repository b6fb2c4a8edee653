// The product of a matrix of tiles with 1 to 8 rows of activations, as the stages of decoding use it: weights
// stream through each warp's ring (weight_ring.cuh) into tensor cores, sums over a warp's, then a block's,
// tiles are added in a fixed order, and the stage says what becomes of a finished sum.
//
// A Stream says in which order tiles are multiplied:
//   Place at(int tile)          where the tile with this number is: `row`, the row of tiles, counted on over
//                               all matrices, and `k`, its column
//   in_row(Place)               tiles from here to the end of the row
//   advance(Place&, count)      past as many tiles, at most to the end of the row
//   columns()                   tiles in a row
//   const unsigned char* address(Place)
//   int contiguous(Place)       tiles from here that lie one behind the other in memory
// Activations say what operand B is:
//   load(const Place&, int block, uint4 (&x)[planes])
//                               columns 8t to 8t + 7 of 32-column block `block` of the tile's columns, of
//                               row min(g, rows - 1)
// Bytes moved: the matrix once; activations as the stage has them.
#pragma once

#include "gg/cuda/stage_shapes.hpp"
#include "gg/cuda/tile.cuh"
#include "gg/cuda/weight_ring.cuh"

namespace gg::cuda {

/// Tiles whose instructions are mixed: two hide each other's latencies, and fit into the registers of half a
/// multiprocessor as ptxas gives them out for compute capability 9.0; for others it would spill.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
inline constexpr int tiles_together = 2;
#else
inline constexpr int tiles_together = 1;
#endif

/// Walks the tiles of a warp: its share of each round of its block's run. `round_tiles` 0: there is one
/// round.
template <int warps, int round_tiles>
struct WarpTiles {
    int tile, end;  ///< of this round
    int round;      ///< tile where this round begins
    int block_end;

    GG_DEVICE static WarpTiles begin(int block_begin, int block_end, int warp) {
        WarpTiles w{0, 0, block_begin, block_end};
        w.share(warp);
        return w;
    }
    /// Where the next round begins.
    GG_DEVICE int next_round() const {
        return round_tiles == 0 || block_end - round < round_tiles ? block_end : round + round_tiles;
    }
    /// Goes to the next round; returns whether there was one.
    GG_DEVICE bool enter_round(int warp) {
        if constexpr (round_tiles == 0) return false;
        round = next_round();
        share(warp);
        return round < block_end;
    }

  private:
    GG_DEVICE void share(int warp) {
        const int count = next_round() - round;
        tile = round + share_begin(count, warp, warps);
        end = round + share_begin(count, warp + 1, warps);
    }
};

/// The warps, a bit each, that have any of tiles [from, to) of a round of `count` tiles.
GG_DEVICE unsigned warps_of(int from, int to, int count, int warps) {
    from = from > 0 ? from : 0;
    to = to < count ? to : count;
    const int last = share_of(count, to - 1, warps);
    unsigned list = (2u << last) - (1u << share_of(count, from, warps));
    if (count < warps)
        for (int w = 0; w < last; ++w)
            if (share_begin(count, w, warps) == share_begin(count, w + 1, warps)) list &= ~(1u << w);
    return list;
}

/// Shared memory of a matvec stage with `plan`: the ring, sums, then activations.
template <class Tile, class Shape>
struct Matvec {
    static constexpr MatvecPlan plan = Shape::plan;
    static constexpr int rows = Shape::rows;
    static_assert(plan.depth >= 2, "the stage's activations do not fit into this chip's shared memory");
    static constexpr int piece_bytes = plan.chunk_tiles * Tile::bytes;
    /// Whether a lane forms sums of the second of its two activations. Of one row there is none, but without
    /// these sums the compiler orders some stages' loops so that they spill.
    static constexpr bool second_sums = rows > 1 || !requires { Shape::single_sums; };
    using Tiles =
        WarpTiles<plan.warps, Shape::shape.whole_rows ? plan.round_rows * Shape::shape.column_tiles : 0>;

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
        Tiles tiles;
        int warp;

        /// Fetches nothing yet.
        GG_DEVICE Feed(const Matvec& m, Shared& shared, const Stream& s)
            : ring(m.ring_memory + m.warp * plan.depth * piece_bytes, shared.barriers[m.warp], m.lane),
              stream(s),
              tiles{},
              warp(m.warp) {}
        /// Begins to fetch before the wait, with the plan's pauses.
        GG_DEVICE Feed(const Matvec& m, Shared& shared, const Stream& s, int block_begin, int block_end)
            : Feed(m, shared, s) {
            start<plan.pause>(block_begin, block_end);
        }
        /// Begins to fetch the warp's share of the block's run, with pauses of so many nanoseconds.
        template <int pause = 0>
        GG_DEVICE void start(int block_begin, int block_end) {
            tiles = Tiles::begin(block_begin, block_end, warp);
#pragma unroll 1
            for (int i = 0; i < plan.depth; ++i) {
                if (pause > 0 && i > 0) __nanosleep(pause);
                fetch(i);
            }
        }
        /// Fetches the next piece, if there is one, into piece `slot` of the ring.
        GG_DEVICE void fetch(int slot) {
            while (tiles.tile >= tiles.end)
                if (!tiles.enter_round(warp)) return ring.skip();
            const auto place = stream.at(tiles.tile);
            const int count = piece(stream, place, tiles);
            ring.fetch(slot, stream.address(place), count * Tile::bytes);
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

        /// Row i of a row tile and activation n.
        GG_DEVICE float operator()(int row_tile, int i, int n) const {
            const int row_begin = row_tile * stream.columns() - begin;
            return over(warps_of(row_begin, row_begin + stream.columns(), count, plan.warps),
                        row_tile - first_row, i, n);
        }
        /// The same of the given warps, in their order; `local_row` counts row tiles of the round.
        GG_DEVICE float over(unsigned warps, int local_row, int i, int n) const {
            float part[plan.warps], sum = 0.0f;
#pragma unroll
            for (int w = 0; w < plan.warps; ++w)
                part[w] = warps >> w & 1u ? sums[((local_row + w) * 16 + i) * rows + n] : 0.0f;
#pragma unroll
            for (int w = 0; w < plan.warps; ++w) sum += part[w];
            return sum;
        }
    };

    /// Tiles in the piece that begins here.
    template <class Stream, class Place>
    GG_DEVICE static int piece(const Stream& stream, const Place& place, const Tiles& tiles) {
        int count = tiles.end - tiles.tile;
        const int together = stream.contiguous(place);
        count = count < together ? count : together;
        return count < plan.chunk_tiles ? count : plan.chunk_tiles;
    }

    /// Multiplies the block's run. `finish(first_row, row_count, sum)` is called by all threads after each
    /// round, for the row tiles [first_row, first_row + row_count) that it touched; sum(row_tile, i, n) is
    /// the block's sum for row i of a row tile and activation n. `finish.ready(first_row, row_count)`, if
    /// there is one, is called by each thread before, when its warp has multiplied its share and may still
    /// wait for others.
    template <class Stream, class Activations, class Finish>
    GG_DEVICE void run(Feed<Stream>& feed, const Stream& stream, const Activations& activations,
                       int block_begin, int block_end, Finish&& finish) {
        mark(ready);
        Tiles tiles = Tiles::begin(block_begin, block_end, warp);
        while (tiles.round < block_end) {
            const int first_row = stream.at(tiles.round).row;
            if (tiles.tile < tiles.end) multiply_round(feed, stream, activations, tiles, first_row);
            mark(multiplied);
            const int last_row = stream.at(tiles.next_round() - 1).row;
            if constexpr (requires { finish.ready(first_row, last_row); })
                finish.ready(first_row, last_row - first_row + 1);
            __syncthreads();
            mark(together);
            const int begin = tiles.round, count = tiles.next_round() - tiles.round;
            finish(first_row, last_row - first_row + 1, Sum<Stream>{sums, stream, begin, count, first_row});
            mark(stored);
            if (!tiles.enter_round(warp)) break;
            __syncthreads();
        }
    }

  private:
    template <class Stream, class Activations>
    GG_DEVICE void multiply_round(Feed<Stream>& feed, const Stream& stream, const Activations& activations,
                                  Tiles& tiles, int first_row) {
        auto place = stream.at(tiles.tile);
        float total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        int left = 0;  // tiles of the piece
        const unsigned char* weights = nullptr;
        while (tiles.tile < tiles.end) {
            if (left == 0) {
                left = piece(stream, place, tiles);
                weights = feed.ring.wait();
                if (tiles.tile == tiles.round) mark(fetched);
            }
            const int in_row = stream.in_row(place), count = left < in_row ? left : in_row;
            multiply_tiles(total, weights, activations, place, count);
            weights += count * Tile::bytes;
            tiles.tile += count;
            left -= count;
            if (left == 0) {
                feed.fetch(feed.ring.release());
            }
            const int row = place.row;
            stream.advance(place, count);
            if (place.row != row || tiles.tile == tiles.end) {
                store(total, row - first_row);
                total[0] = total[1] = total[2] = total[3] = 0.0f;
            }
        }
    }

    /// Tiles of one row, one behind the other.
    template <class Activations, class Place>
    GG_DEVICE void multiply_tiles(float (&total)[4], const unsigned char* weights,
                                  const Activations& activations, Place place, int count) {
        constexpr int planes = Tile::Operand::planes;
#pragma unroll(tiles_together)
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
        if (second_sums && n + 1 < rows) {
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

}  // namespace gg::cuda
