// Weights as the kernels read them: tiles of 16 rows x 64 columns, rearranged when a model is loaded so that
// a warp reads a tile in 16-byte pieces and has tensor-core operands after a few integer operations. A matrix
// is [row tile][column tile] of them, rows and columns padded with zeros.
//
// Lane 4g + t of a warp holds rows g and g + 8. Of each 32 columns (block b = 0, 1) it holds 8t to 8t + 7, in
// eight registers of two neighbours: register 4j + i has row g + 8 (i & 1), columns 8t + 4j + 2 (i >> 1) and
// the next; registers 4j .. 4j + 3 are operand A of multiplication step j. So operand B of both steps is one
// 16-byte read of the activations at 32b + 8t, in their natural order.
//
// format   bytes  layout
// F16      2048   [b][j][lane] 16 bytes: registers 4j .. 4j + 3
// BF16     2048   the same
// Q8_0     1088   [b][lane] 16 bytes: word w = bytes of registers 2w and 2w + 1, each plus 128; then at 1024
// + 8g
//                 FP16 scales of (row g, b 0), (row g + 8, b 0), (g, 1), (g + 8, 1)
// MXFP4     544   [lane] 16 bytes: words 2b, 2b + 1; then at 512 + 4g exponents plus 14 of the same four
//
// MXFP4: E2M1 at bits 15, 11, 10, 9 of FP16 is its value times 2^-14, subnormals included, and FP16
// arithmetic of tensor cores honours them, so that a mask makes an operand. Two words hold eight registers:
//   r0 = w0 & m            r1 = w0 << 8 & m          r4, r5 likewise from w1            m = 0x8E008E00
//   u = w0, but bits 2, 10, 18, 26 from w1 << 2      v the other way round
//   r2 = u << 5 & m        r3 = rotl(u, 13) & m      r6, r7 likewise from v
// which takes 18 operations for 16 weights, 6 of them shifts that a multiplier can do as well: integer logic
// has half the rate of floating point. 2^(e - 127 + 14) multiplies the sum over 32 columns; e up to 240.
// Q8_0: the byte b is FP16 0x6400 + b = 1024 + b, from which 1152 is subtracted, exactly.
#pragma once

#include "gg/cuda/operand.cuh"
#include "gg/format/floats.hpp"
#include "gg/format/mxfp4.hpp"
#include "gg/format/q8_0.hpp"

namespace gg::cuda {

/// Eight operand registers of a lane: 16 rows x 32 columns in a warp.
struct Fragment {
    unsigned r[8];
};

/// The factors of rows g and g + 8 in one block of 32 columns.
struct RowScales {
    float low, high;
};

namespace detail {

GG_HD GG_INLINE unsigned rotate_left(unsigned w, int n) {
#if defined(__CUDA_ARCH__)
    return __funnelshift_l(w, w, n);
#else
    return n == 0 ? w : w << n | w >> (32 - n);
#endif
}

/// Bits of `a` where `mask` has ones, else of `b`: one operation.
template <unsigned mask>
GG_HD GG_INLINE unsigned select_bits(unsigned a, unsigned b) {
#if defined(__CUDA_ARCH__)
    unsigned selected;
    asm("lop3.b32 %0, %1, %2, %3, 0xCA;" : "=r"(selected) : "n"(mask), "r"(a), "r"(b));
    return selected;
#else
    return (a & mask) | (b & ~mask);
#endif
}

inline constexpr unsigned mxfp4_mask = 0x8E008E00u;
inline constexpr unsigned mxfp4_lent = 0x04040404u;  ///< bits of u and v that come from the other word

/// Two words to eight registers.
GG_HD GG_INLINE void unpack_mxfp4(unsigned w0, unsigned w1, unsigned (&r)[8]) {
    const unsigned u = select_bits<mxfp4_lent>(w1 << 2, w0);
    const unsigned v = select_bits<mxfp4_lent>(w0 << 2, w1);
    r[0] = w0 & mxfp4_mask;
    r[1] = (w0 << 8) & mxfp4_mask;
    r[2] = (u << 5) & mxfp4_mask;
    r[3] = rotate_left(u, 13) & mxfp4_mask;
    r[4] = w1 & mxfp4_mask;
    r[5] = (w1 << 8) & mxfp4_mask;
    r[6] = (v << 5) & mxfp4_mask;
    r[7] = rotate_left(v, 13) & mxfp4_mask;
}

/// The inverse of unpack_mxfp4, for registers that have no other bits than those of the mask.
GG_HD GG_INLINE void pack_mxfp4(const unsigned (&r)[8], unsigned& w0, unsigned& w1) {
    const unsigned u = rotate_left(r[2], 27) | rotate_left(r[3], 19);
    const unsigned v = rotate_left(r[6], 27) | rotate_left(r[7], 19);
    w0 = r[0] | rotate_left(r[1], 24) | (u & ~mxfp4_lent) | rotate_left(v & mxfp4_lent, 30);
    w1 = r[4] | rotate_left(r[5], 24) | (v & ~mxfp4_lent) | rotate_left(u & mxfp4_lent, 30);
}

/// A tile of 16-bit floats.
struct SixteenBitTile {
    static constexpr int bytes = 2048;
    static constexpr bool scaled = false;

    GG_DEVICE static Fragment load(const unsigned char* tile, int block, int lane) {
        const uint4 low = *reinterpret_cast<const uint4*>(tile + (2 * block * 32 + lane) * 16);
        const uint4 high = *reinterpret_cast<const uint4*>(tile + ((2 * block + 1) * 32 + lane) * 16);
        return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    }
    GG_DEVICE static RowScales scales(const unsigned char*, int, int) { return {1.0f, 1.0f}; }
};

}  // namespace detail

/// The tile of a block format: bytes, Operand (what its activations are encoded as), load (the operand
/// registers of one block of 32 columns), and, if `scaled`, scales (what multiplies that block's sums).
template <class Format>
struct Tile;

template <>
struct Tile<format::F16> : detail::SixteenBitTile {
    using Operand = HalfOperand;
};

template <>
struct Tile<format::BF16> : detail::SixteenBitTile {
    using Operand = BfloatPairOperand;
};

template <>
struct Tile<format::Q8_0> {
    using Operand = HalfOperand;
    static constexpr int bytes = 1088;
    static constexpr bool scaled = true;

    GG_DEVICE static Fragment load(const unsigned char* tile, int block, int lane) {
        const uint4 w = *reinterpret_cast<const uint4*>(tile + (block * 32 + lane) * 16);
        const unsigned words[4] = {w.x, w.y, w.z, w.w};
        Fragment f;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            f.r[2 * i] = add_half_pairs(__byte_perm(words[i], 0x64646464u, 0x4140), 0xE480E480u);
            f.r[2 * i + 1] = add_half_pairs(__byte_perm(words[i], 0x64646464u, 0x4342), 0xE480E480u);
        }
        return f;
    }
    GG_DEVICE static RowScales scales(const unsigned char* tile, int block, int lane) {
        const unsigned d = *reinterpret_cast<const unsigned*>(tile + 1024 + 8 * (lane >> 2) + 4 * block);
        return {low_half_value(d), high_half_value(d)};
    }
};

template <>
struct Tile<format::MXFP4> {
    using Operand = HalfOperand;
    static constexpr int bytes = 544;
    static constexpr bool scaled = true;
    static constexpr int exponent_bias = 14;      ///< what is added to the file's exponent
    static constexpr int largest_exponent = 240;  ///< of the file

    GG_DEVICE static Fragment load(const unsigned char* tile, int block, int lane) {
        const uint2 w = *reinterpret_cast<const uint2*>(tile + 16 * lane + 8 * block);
        Fragment f;
        detail::unpack_mxfp4(w.x, w.y, f.r);
        return f;
    }
    GG_DEVICE static RowScales scales(const unsigned char* tile, int block, int lane) {
        const unsigned e = *reinterpret_cast<const unsigned*>(tile + 512 + 4 * (lane >> 2)) >> (16 * block);
        return {float_from_bits((e & 0xFFu) << 23), float_from_bits((e & 0xFF00u) << 15)};
    }
};

/// sums += one block of 32 columns of the tile times the activations `x`: columns 8t to 8t + 7 of the block
/// for column g of the product, of each plane.
template <class Tile>
GG_DEVICE void multiply_block(float (&sums)[4], const Fragment& f, const RowScales& scales,
                              const uint4 (&x)[Tile::Operand::planes]) {
    if constexpr (Tile::Operand::planes == 2) {
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            multiply_bfloat(sums, f.r[0], f.r[1], f.r[2], f.r[3], x[p].x, x[p].y);
            multiply_bfloat(sums, f.r[4], f.r[5], f.r[6], f.r[7], x[p].z, x[p].w);
        }
    } else if constexpr (Tile::scaled) {
        float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        multiply_half(c, f.r[0], f.r[1], f.r[2], f.r[3], x[0].x, x[0].y);
        multiply_half(c, f.r[4], f.r[5], f.r[6], f.r[7], x[0].z, x[0].w);
        sums[0] += scales.low * c[0];
        sums[1] += scales.low * c[1];
        sums[2] += scales.high * c[2];
        sums[3] += scales.high * c[3];
    } else {
        multiply_half(sums, f.r[0], f.r[1], f.r[2], f.r[3], x[0].x, x[0].y);
        multiply_half(sums, f.r[4], f.r[5], f.r[6], f.r[7], x[0].z, x[0].w);
    }
}

}  // namespace gg::cuda
