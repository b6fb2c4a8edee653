// Weight tiles (tile.cuh) as operand A of a warpgroup's products (warpgroup.cuh), which sum over all columns
// before anything is scaled: so a block's scale goes onto its weights, in FP16, relative to the largest of
// its row, and the sums are multiplied by the row's unit at the end.
//
//   MXFP4  weight x 2^(e - largest + 14), where tiles hold weight x 2^-14: exact down to 2^-20 of the row's
//          largest block
//   Q8_0   code x d / unit, rounded once to FP16; unit is the power of two at or below the row's largest |d|
//   F16    the weight
//
// A row's unit is kept as the exponent of a float: the largest of its blocks (repack.cuh makes them).
#pragma once

#include "gg/cuda/tile.cuh"

namespace gg::cuda {

/// The units of rows g and g + 8 of a row tile: exponents of floats.
struct RowUnits {
    int low, high;
};

/// How a format's tiles become operands. `scaled`: whether rows have units. load() gives the registers of one
/// block of 32 columns; unit() what a row's sums are multiplied by.
template <class Format>
struct WarpgroupTile;

template <>
struct WarpgroupTile<format::F16> : Tile<format::F16> {
    static constexpr bool scaled = false;
    GG_DEVICE static Fragment load(const unsigned char* tile, int block, int lane, const RowUnits&) {
        return Tile<format::F16>::load(tile, block, lane);
    }
    GG_DEVICE static float unit(int) { return 1.0f; }
};

template <>
struct WarpgroupTile<format::Q8_0> : Tile<format::Q8_0> {
    static constexpr bool scaled = true;

    GG_DEVICE static Fragment load(const unsigned char* tile, int block, int lane, const RowUnits& units) {
        Fragment f = Tile<format::Q8_0>::load(tile, block, lane);
        const RowScales scales = Tile<format::Q8_0>::scales(tile, block, lane);
        const float low = scales.low * inverse(units.low), high = scales.high * inverse(units.high);
        const unsigned factor[2] = {pack_half(low, low), pack_half(high, high)};
#pragma unroll
        for (int i = 0; i < 8; ++i) f.r[i] = multiply_half_pairs(f.r[i], factor[i % 2]);
        return f;
    }
    GG_DEVICE static float unit(int exponent) {
        return float_from_bits(static_cast<unsigned>(exponent) << 23);
    }

  private:
    /// One over a unit; units are those of FP16 numbers.
    GG_DEVICE static float inverse(int exponent) {
        return float_from_bits(static_cast<unsigned>(254 - exponent) << 23);
    }
};

template <>
struct WarpgroupTile<format::MXFP4> : Tile<format::MXFP4> {
    static constexpr bool scaled = true;

    GG_DEVICE static Fragment load(const unsigned char* tile, int block, int lane, const RowUnits& units) {
        Fragment f = Tile<format::MXFP4>::load(tile, block, lane);
        const unsigned e = *reinterpret_cast<const unsigned*>(tile + 512 + 4 * (lane >> 2)) >> (16 * block);
        const unsigned factor[2] = {power(e & 0xFFu, units.low), power(e >> 8 & 0xFFu, units.high)};
#pragma unroll
        for (int i = 0; i < 8; ++i) f.r[i] = multiply_half_pairs(f.r[i], factor[i % 2]);
        return f;
    }
    /// Tiles hold exponents plus 14, and what was decoded is short of 2^14.
    GG_DEVICE static float unit(int exponent) {
        return float_from_bits(static_cast<unsigned>(exponent) << 23) * 0x1p-14f;
    }

  private:
    /// 2^(exponent - largest + 14) in both halves, 0 below 2^-14.
    GG_DEVICE static unsigned power(unsigned exponent, int largest) {
        const int smallest = largest - 29, e = static_cast<int>(exponent);
        return static_cast<unsigned>((e > smallest ? e : smallest) - smallest) * 0x04000400u;
    }
};

}  // namespace gg::cuda
