// Tiles made and read on the host, bit by bit from the table in gg/cuda/tile.cuh and not by its functions.
//
//   const auto tiles = pack_tiles<Format>(rows, columns, element, scale);
//   const double w = tiles_value<Format>(tiles.data(), columns, row, column);
//
// element(row, column) -> int: FP16 or BF16 bits, the Q8_0 integer -128 .. 127, or the E2M1 nibble.
// scale(row, block of 32 columns) -> int: the FP16 bits of Q8_0's d, or E8M0 as in the file.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

#include "gg/format/floats.hpp"
#include "gg/format/mxfp4.hpp"
#include "gg/format/q8_0.hpp"

namespace cuda_test {

/// Where an element lies: lane, operand register (of its block of 32 columns), half of the register.
struct TilePlace {
    int block, lane, reg, half;
    int g, low_or_high;  ///< row = g + 8 low_or_high

    TilePlace(int row, int column)
        : block(column / 32),
          lane(4 * (row % 8) + column % 32 / 8),
          reg(4 * (column % 8 / 4) + 2 * (column % 4 / 2) + row / 8),
          half(column % 2),
          g(row % 8),
          low_or_high(row / 8) {}
};

/// Two bytes, little-endian.
inline void put_16(unsigned char* at, int value) {
    at[0] = static_cast<unsigned char>(value & 255);
    at[1] = static_cast<unsigned char>(value >> 8 & 255);
}
inline unsigned get_16(const unsigned char* at) {
    return at[0] | static_cast<unsigned>(at[1]) << 8;
}

/// The bytes of a tile of a format, one element or scale at a time.
template <class Format>
struct TileBytes;

/// Sixteen-bit floats: their bits.
template <class Format>
struct SixteenBitTileBytes {
    static constexpr int bytes = 2048;
    static constexpr bool scaled = false;

    static int offset(const TilePlace& p) {
        const int step = p.reg / 4, i = p.reg % 4;
        return ((p.block * 2 + step) * 32 + p.lane) * 16 + 4 * i + 2 * p.half;
    }
    static void put(unsigned char* tile, const TilePlace& p, int bits) { put_16(tile + offset(p), bits); }
    static void put_scale(unsigned char*, const TilePlace&, int) {}
    static double value(const unsigned char* tile, const TilePlace& p) {
        float value = 0;
        Format::decode(tile + offset(p), &value);
        return static_cast<double>(value);
    }
};

template <>
struct TileBytes<gg::format::F16> : SixteenBitTileBytes<gg::format::F16> {};
template <>
struct TileBytes<gg::format::BF16> : SixteenBitTileBytes<gg::format::BF16> {};

template <>
struct TileBytes<gg::format::Q8_0> {
    static constexpr int bytes = 1088;
    static constexpr bool scaled = true;

    static int offset(const TilePlace& p) {
        const int word = p.reg / 2, byte = 2 * (p.reg % 2) + p.half;
        return (p.block * 32 + p.lane) * 16 + 4 * word + byte;
    }
    static int scale_offset(const TilePlace& p) { return 1024 + 8 * p.g + 2 * (2 * p.block + p.low_or_high); }
    static void put(unsigned char* tile, const TilePlace& p, int quant) {
        tile[offset(p)] = static_cast<unsigned char>(quant + 128);
    }
    static void put_scale(unsigned char* tile, const TilePlace& p, int half_bits) {
        put_16(tile + scale_offset(p), half_bits);
    }
    static double value(const unsigned char* tile, const TilePlace& p) {
        const float d = gg::format::half_to_float(get_16(tile + scale_offset(p)));
        return static_cast<double>(d) * (static_cast<int>(tile[offset(p)]) - 128);
    }
};

template <>
struct TileBytes<gg::format::MXFP4> {
    static constexpr int bytes = 544;
    static constexpr bool scaled = true;

    /// The bit, counted from the first byte of the tile, of bit 0 .. 3 of an element's nibble.
    static int bit(const TilePlace& p, int nibble_bit) {
        constexpr int half_bits[4] = {9, 10, 11, 15};
        constexpr int rotations[4] = {0, 8, 5, 13};
        const int in_register = 16 * p.half + half_bits[nibble_bit];
        const int source = (in_register - rotations[p.reg % 4] + 32) % 32;  // of w0, w1, u or v
        const bool lent = p.reg % 4 >= 2 && source % 8 == 2;                // u and v: bits 2, 10, 18, 26
        const int word = (p.reg / 4) ^ static_cast<int>(lent);
        const int in_word = lent ? source - 2 : source;
        return 8 * (16 * p.lane + 4 * (2 * p.block + word)) + in_word;
    }
    static int scale_offset(const TilePlace& p) { return 512 + 4 * p.g + 2 * p.block + p.low_or_high; }
    static void put(unsigned char* tile, const TilePlace& p, int nibble) {
        for (int i = 0; i < 4; ++i) {
            const int at = bit(p, i);
            const int mask = 1 << at % 8;
            tile[at / 8] = static_cast<unsigned char>((tile[at / 8] & ~mask) | (nibble >> i & 1) << at % 8);
        }
    }
    static void put_scale(unsigned char* tile, const TilePlace& p, int exponent) {
        tile[scale_offset(p)] = static_cast<unsigned char>(exponent + 14);
    }
    static int nibble(const unsigned char* tile, const TilePlace& p) {
        int nibble = 0;
        for (int i = 0; i < 4; ++i) nibble |= (tile[bit(p, i) / 8] >> bit(p, i) % 8 & 1) << i;
        return nibble;
    }
    static double value(const unsigned char* tile, const TilePlace& p) {
        constexpr double magnitudes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
        const int code = nibble(tile, p);
        const double magnitude = std::ldexp(magnitudes[code & 7], tile[scale_offset(p)] - 14 - 127);
        return code & 8 ? -magnitude : magnitude;
    }
};

/// Bytes of the tiles of a matrix.
template <class Format>
std::size_t tiles_bytes(int rows, int columns) {
    return static_cast<std::size_t>((rows + 15) / 16) * static_cast<std::size_t>((columns + 63) / 64) *
           static_cast<std::size_t>(TileBytes<Format>::bytes);
}

/// The offset in bytes of the tile that holds an element.
template <class Format>
std::size_t tile_offset(int columns, int row, int column) {
    return (static_cast<std::size_t>(row / 16) * static_cast<std::size_t>((columns + 63) / 64) +
            static_cast<std::size_t>(column / 64)) *
           static_cast<std::size_t>(TileBytes<Format>::bytes);
}

/// The value of an element of one tile, row 0 .. 15, column 0 .. 63.
template <class Format>
double tile_value(const unsigned char* tile, int row, int column) {
    return TileBytes<Format>::value(tile, TilePlace(row, column));
}

/// The value of an element of a matrix of tiles, padding included.
template <class Format>
double tiles_value(const unsigned char* tiles, int columns, int row, int column) {
    return tile_value<Format>(tiles + tile_offset<Format>(columns, row, column), row % 16, column % 64);
}

/// The tiles of a matrix; the padding is zero.
template <class Format, class Element, class Scale>
std::vector<unsigned char> pack_tiles(int rows, int columns, Element element, Scale scale) {
    std::vector<unsigned char> tiles(tiles_bytes<Format>(rows, columns));
    for (int row = 0; row < (rows + 15) / 16 * 16; ++row)
        for (int column = 0; column < (columns + 63) / 64 * 64; ++column) {
            const bool inside = row < rows && column < columns;
            const TilePlace place(row % 16, column % 64);
            unsigned char* tile = tiles.data() + tile_offset<Format>(columns, row, column);
            TileBytes<Format>::put(tile, place, inside ? static_cast<int>(element(row, column)) : 0);
            if (inside && column % 32 == 0)
                TileBytes<Format>::put_scale(tile, place, static_cast<int>(scale(row, column / 32)));
        }
    return tiles;
}

/// The same for 16-bit floats, which have no scales.
template <class Format, class Element>
std::vector<unsigned char> pack_tiles(int rows, int columns, Element element) {
    static_assert(!TileBytes<Format>::scaled);
    return pack_tiles<Format>(rows, columns, element, [](int, int) { return 0; });
}

/// Units of rows (gg/cuda/warpgroup_tile.cuh) of whole matrices of tiles, [matrices][row tiles][16]; zeros
/// for formats without scales.
template <class Format>
std::vector<unsigned char> row_units(const std::vector<unsigned char>& tiles, int columns) {
    constexpr bool mxfp4 = std::is_same_v<Format, gg::format::MXFP4>,
                   q8_0 = std::is_same_v<Format, gg::format::Q8_0>;
    constexpr std::size_t bytes = mxfp4 ? 544 : q8_0 ? 1088 : 2048;
    const std::size_t across = static_cast<std::size_t>(columns + 63) / 64;
    std::vector<unsigned char> units(tiles.size() / bytes / across * 16);
    for (std::size_t tile = 0; (mxfp4 || q8_0) && tile < tiles.size() / bytes; ++tile)
        for (std::size_t i = 0; i < 32; ++i) {  // rows g and g + 8 of block 0, then of block 1
            const unsigned char* at = tiles.data() + tile * bytes;
            int unit = at[512 + i];
            if (q8_0) {
                const float d = gg::format::half_to_float(
                    static_cast<unsigned>(at[1024 + 2 * i] | at[1025 + 2 * i] << 8));
                unit = d != 0 ? std::ilogb(d) + 127 : 0;
            }
            unsigned char& row = units[tile / across * 16 + i / 4 + 8 * (i % 2)];
            row = static_cast<unsigned char>(row > unit ? row : unit);
        }
    return units;
}

}  // namespace cuda_test
