// What a tile's elements are made of (repack.cuh): a lane decodes 32 elements of a row in the file's type to
// 16-bit codes and a scale, and stores the words of its place in the tile (tile.cuh).
//
//   target  sources                          code and scale
//   F16     every type                       FP16 bits, rounded to nearest
//   BF16    BF16                             the file's bits
//   Q8_0    Q8_0, Q4_0, Q5_0, IQ4_NL         the integer q of value = d q, plus 128; the file's FP16 d
//   MXFP4   MXFP4                            FP16 bits of the nibble times 2^-14; the file's exponent + 14
//
// The four sources of Q8_0 begin their block with d and have values d q with -128 <= q <= 127: a product of
// 11 and 8 significant bits, exact in a float, so that value / d gives q back exactly.
//
// Counted as faults: elements of F16 that are no numbers or beyond 65504, elements of BF16 and scales of Q8_0
// that are infinite or NaN, scales of MXFP4 above 240.
#pragma once

#include "gg/cuda/tile.cuh"
#include "gg/format/encode_floats.hpp"
#include "gg/format/iq4_nl.hpp"
#include "gg/format/q4_0.hpp"
#include "gg/format/q4_1.hpp"
#include "gg/format/q4_k.hpp"
#include "gg/format/q5_0.hpp"
#include "gg/format/q5_1.hpp"
#include "gg/format/q5_k.hpp"
#include "gg/format/q6_k.hpp"

namespace gg::cuda {

/// The id that GGUF gives a format.
template <class Format>
inline constexpr int format_id = -1;
template <>
inline constexpr int format_id<format::F32> = 0;
template <>
inline constexpr int format_id<format::F16> = 1;
template <>
inline constexpr int format_id<format::Q4_0> = 2;
template <>
inline constexpr int format_id<format::Q4_1> = 3;
template <>
inline constexpr int format_id<format::Q5_0> = 6;
template <>
inline constexpr int format_id<format::Q5_1> = 7;
template <>
inline constexpr int format_id<format::Q8_0> = 8;
template <>
inline constexpr int format_id<format::Q4_K> = 12;
template <>
inline constexpr int format_id<format::Q5_K> = 13;
template <>
inline constexpr int format_id<format::Q6_K> = 14;
template <>
inline constexpr int format_id<format::IQ4_NL> = 20;
template <>
inline constexpr int format_id<format::BF16> = 30;
template <>
inline constexpr int format_id<format::MXFP4> = 39;

namespace detail {

/// 32 elements as codes, two a word as they stand in the row, and their scale.
struct RepackChunk {
    unsigned pairs[16];
    unsigned scale;
    int faults;
};

/// Sixteen bytes, moved at once.
struct alignas(16) Words {
    unsigned at[4];
};

/// Chunk `chunk` of a row, of which `count` elements are there; the others become 0.
template <class Format>
GG_HD GG_INLINE void decode_count(const unsigned char* row, int chunk, [[maybe_unused]] int count,
                                  float (&values)[32]) {
    if constexpr (Format::elements == 1)
        Format::decode_tail(row, chunk, count, values);
    else
        Format::decode_chunk(row, chunk, values);
}

/// The same of a row in the one of Formats that has the id `type`. Leaves the values of any other alone.
template <class... Formats>
GG_HD GG_INLINE void decode_one_of(int type, const unsigned char* row, int chunk, int count,
                                   float (&values)[32]) {
    (void)((type == format_id<Formats> && (decode_count<Formats>(row, chunk, count, values), true)) || ...);
}

/// Bytes of a block of the one of Formats that has the id `type`.
template <class... Formats>
GG_HD GG_INLINE int block_bytes_of(int type) {
    int bytes = 0;
    ((bytes = type == format_id<Formats> ? Formats::bytes : bytes), ...);
    return bytes;
}

/// Whether the magnitude is at most that of `limit_bits`; false for a NaN.
GG_HD GG_INLINE bool is_within(float value, unsigned limit_bits) {
    return (float_bits(value) & 0x7FFFFFFFu) <= limit_bits;
}
inline constexpr unsigned largest_half = 0x477FE000u;   ///< 65504, the largest FP16
inline constexpr unsigned largest_float = 0x7F7FFFFFu;  ///< the largest finite number

/// Register 2 p + h of a block of 32 columns is pair p of 8 columns of row g + 8 h.
GG_HD GG_INLINE void registers_of(const Words& low, const Words& high, unsigned (&r)[8]) {
#pragma unroll
    for (int p = 0; p < 4; ++p) {
        r[2 * p] = low.at[p];
        r[2 * p + 1] = high.at[p];
    }
}

GG_HD GG_INLINE void store_words(unsigned char* at, unsigned a, unsigned b, unsigned c, unsigned d) {
    *reinterpret_cast<Words*>(at) = Words{{a, b, c, d}};
}

/// What a tile of 16-bit floats is made of.
struct SixteenBitEncoder {
    static constexpr unsigned empty = 0;

    GG_HD GG_INLINE static void store(unsigned char* tile, int lane, const unsigned (&r)[2][8]) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const unsigned* four = r[k / 2] + 4 * (k % 2);
            store_words(tile + (k * 32 + lane) * 16, four[0], four[1], four[2], four[3]);
        }
    }
    GG_HD GG_INLINE static void store_scale(unsigned char*, int, int, unsigned) {}
    GG_HD GG_INLINE static unsigned unit(unsigned) {
        return 0;
    }
};

/// How a target format encodes 32 elements and stores a lane's part of a tile. `empty` is the code of two
/// elements of padding; `unit` what a scale counts as among the scales of its row (warpgroup_tile.cuh).
template <class Target>
struct TileEncoder;

template <>
struct TileEncoder<format::F16> : SixteenBitEncoder {
    GG_HD GG_INLINE static void encode(int type, const unsigned char* row, int chunk, int count,
                                       RepackChunk& out) {
        using namespace format;
        float values[32];
#pragma unroll
        for (int j = 0; j < 32; ++j) values[j] = 0.0f;
        decode_one_of<F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, Q4_K, Q5_K, Q6_K, MXFP4>(
            type, row, chunk, count, values);
#pragma unroll
        for (int p = 0; p < 16; ++p) {
            const float low = values[2 * p], high = values[2 * p + 1];
            out.faults += static_cast<int>(!is_within(low, largest_half)) +
                          static_cast<int>(!is_within(high, largest_half));
            out.pairs[p] = float_to_half(low) | static_cast<unsigned>(float_to_half(high)) << 16;
        }
    }
};

template <>
struct TileEncoder<format::BF16> : SixteenBitEncoder {
    GG_HD GG_INLINE static void encode(int, const unsigned char* row, int chunk, int count,
                                       RepackChunk& out) {
        float values[32];
        format::BF16::decode_tail(row, chunk, count, values);
#pragma unroll
        for (int p = 0; p < 16; ++p) {
            const float low = values[2 * p], high = values[2 * p + 1];
            out.faults += static_cast<int>(!is_within(low, largest_float)) +
                          static_cast<int>(!is_within(high, largest_float));
            out.pairs[p] = float_bits(low) >> 16 | (float_bits(high) & 0xFFFF0000u);
        }
    }
};

template <>
struct TileEncoder<format::Q8_0> {
    static constexpr unsigned empty = 0x00800080u;

    GG_HD GG_INLINE static void encode(int type, const unsigned char* row, int chunk, int, RepackChunk& out) {
        using namespace format;
        float values[32];
#pragma unroll
        for (int j = 0; j < 32; ++j) values[j] = 0.0f;
        decode_one_of<Q8_0, Q4_0, Q5_0, IQ4_NL>(type, row, chunk, 32, values);
        const int bytes = block_bytes_of<Q8_0, Q4_0, Q5_0, IQ4_NL>(type);
        out.scale = load_u16(row + static_cast<format::Size>(chunk) * static_cast<format::Size>(bytes));
        const float d = half_to_float(out.scale);
        if (!is_within(d, largest_float)) {
            out.faults = 1;
            return;
        }
#pragma unroll
        for (int p = 0; p < 16; ++p) out.pairs[p] = code(values[2 * p], d) | code(values[2 * p + 1], d) << 16;
    }
    /// Word w holds the bytes of registers 2w and 2w + 1.
    GG_HD GG_INLINE static void store(unsigned char* tile, int lane, const unsigned (&r)[2][8]) {
#pragma unroll
        for (int b = 0; b < 2; ++b)
            store_words(tile + (b * 32 + lane) * 16, pack(r[b][0], r[b][1]), pack(r[b][2], r[b][3]),
                        pack(r[b][4], r[b][5]), pack(r[b][6], r[b][7]));
    }
    GG_HD GG_INLINE static void store_scale(unsigned char* tile, int row, int block, unsigned scale) {
        *reinterpret_cast<unsigned short*>(tile + 1024 + 8 * (row % 8) + 4 * block + 2 * (row / 8)) =
            static_cast<unsigned short>(scale);
    }
    GG_HD GG_INLINE static unsigned unit(unsigned scale) {
        return float_bits(format::half_to_float(scale)) >> 23 & 0xFFu;
    }

  private:
    GG_HD GG_INLINE static unsigned code(float value, float d) {
        const float q = d == 0.0f ? 0.0f : value / d;
        return static_cast<unsigned>(static_cast<int>(q + 128.5f));  // above 0: truncation rounds down
    }
    GG_HD GG_INLINE static unsigned pack(unsigned low, unsigned high) {
        return (low & 0xFFu) | (low >> 8 & 0xFF00u) | (high & 0xFFu) << 16 | (high << 8 & 0xFF000000u);
    }
};

template <>
struct TileEncoder<format::MXFP4> {
    static constexpr unsigned empty = 0;

    GG_HD GG_INLINE static void encode(int, const unsigned char* row, int chunk, int, RepackChunk& out) {
        const unsigned char* block = row + static_cast<format::Size>(chunk) * format::MXFP4::bytes;
        const unsigned exponent = block[0];
        out.faults = static_cast<int>(exponent > Tile<format::MXFP4>::largest_exponent);
        out.scale = exponent + Tile<format::MXFP4>::exponent_bias;
#pragma unroll
        for (int p = 0; p < 8; ++p) {
            const unsigned a = block[1 + 2 * p], b = block[2 + 2 * p];
            out.pairs[p] = code(a) | code(b) << 16;
            out.pairs[p + 8] = code(a >> 4) | code(b >> 4) << 16;
        }
    }
    GG_HD GG_INLINE static void store(unsigned char* tile, int lane, const unsigned (&r)[2][8]) {
        unsigned w[4];
        pack_mxfp4(r[0], w[0], w[1]);
        pack_mxfp4(r[1], w[2], w[3]);
        store_words(tile + lane * 16, w[0], w[1], w[2], w[3]);
    }
    GG_HD GG_INLINE static void store_scale(unsigned char* tile, int row, int block, unsigned scale) {
        tile[512 + 4 * (row % 8) + 2 * block + row / 8] = static_cast<unsigned char>(scale);
    }
    GG_HD GG_INLINE static unsigned unit(unsigned scale) {
        return scale;
    }

  private:
    GG_HD GG_INLINE static unsigned code(unsigned nibble) {
        return (nibble & 7u) << 9 | (nibble & 8u) << 12;
    }
};

}  // namespace detail

}  // namespace gg::cuda
