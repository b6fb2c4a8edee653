// From rows of the file to tiles (tile.cuh), when a model is loaded: one kernel a target format, for all
// matrices of all models. A warp makes a tile: each lane decodes 32 elements of one row to codes in shared
// memory (tile_encoder.cuh says how, and what counts as a fault), then gathers the words of its place in the
// tile. Padding is zero. Where products ask for it, each row's unit is the largest of its scales' units.
//
// Bytes moved: the file's once, the tiles' once.
#pragma once

#include "gg/cuda/repack_args.hpp"
#include "gg/cuda/tile_encoder.cuh"

namespace gg::cuda {

namespace detail {

/// Makes a byte at least `value`. On the device other threads may raise its neighbours at the same time.
GG_HD GG_INLINE void raise(unsigned char* at, unsigned value) {
#if defined(__CUDA_ARCH__)
    const Size address = reinterpret_cast<Size>(at);
    unsigned* const word = reinterpret_cast<unsigned*>(address & ~Size{3});
    const int shift = static_cast<int>(address & 3) * 8;
    unsigned seen = *reinterpret_cast<volatile unsigned*>(word);
    while ((seen >> shift & 0xFFu) < value) {
        const unsigned before = seen;
        seen = atomicCAS(word, before, (before & ~(0xFFu << shift)) | value << shift);
        if (seen == before) break;
    }
#else
    *at = static_cast<unsigned char>(value > *at ? value : *at);
#endif
}

}  // namespace detail

/// Makes tiles of one format from rows of any that has it as target.
template <class Target>
struct Repack {
    using Args = RepackArgs;
    static constexpr int threads = repack_threads;
    static constexpr int shared_bytes = 0;

    /// The codes of a tile; a row is padded, so that rows begin in different banks.
    struct Codes {
        detail::Words at[tile_rows][9];
    };

    __device__ static void run(const Args& args) {
        __shared__ Codes codes[threads / warp_size];
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        const Size tile = Size{blockIdx.x} * (threads / warp_size) + static_cast<Size>(warp);
        if (tile >= repack_tiles(args)) return;
        unsigned char* out = args.tiles + tile * Tile<Target>::bytes;
        if (const int faults = read(args, tile, lane, codes[warp], out))
            atomicAdd(args.faults + repack_place(args, tile, lane).source, faults);
        __syncwarp();
        write(codes[warp], lane, out);
    }

    /// Decodes a lane's elements into the codes and stores their scale; returns the faults.
    GG_HD GG_INLINE static int read(const Args& args, Size tile, int lane, Codes& codes, unsigned char* out) {
        const RepackPlace place = repack_place(args, tile, lane);
        detail::RepackChunk chunk;
        chunk.scale = 0;
        chunk.faults = 0;
#pragma unroll
        for (int p = 0; p < 16; ++p) chunk.pairs[p] = Encoder::empty;
        if (place.count > 0) {
            const RepackSource& source = args.sources[place.source];
            Encoder::encode(source.type, source.rows + place.row * source.row_bytes, place.chunk, place.count,
                            chunk);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
            codes.at[lane / 2][4 * (lane % 2) + i] = detail::Words{
                {chunk.pairs[4 * i], chunk.pairs[4 * i + 1], chunk.pairs[4 * i + 2], chunk.pairs[4 * i + 3]}};
        Encoder::store_scale(out, lane / 2, lane % 2, chunk.scale);
        if (args.row_units)
            detail::raise(
                args.row_units + tile / static_cast<Size>(repack_column_tiles(args)) * tile_rows + lane / 2,
                Encoder::unit(chunk.scale));
        return chunk.faults;
    }

    /// Stores the words of a lane, once all have read.
    GG_HD GG_INLINE static void write(const Codes& codes, int lane, unsigned char* out) {
        const int g = lane / 4, t = lane % 4;
        unsigned r[2][8];
#pragma unroll
        for (int b = 0; b < 2; ++b)
            detail::registers_of(codes.at[g][4 * b + t], codes.at[g + 8][4 * b + t], r[b]);
        Encoder::store(out, lane, r);
    }

  private:
    using Encoder = detail::TileEncoder<Target>;
};

}  // namespace gg::cuda
