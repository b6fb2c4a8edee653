// Little-endian loads from unaligned bytes, the FP16 to float conversion, and the body that most block
// formats share. Everything here is one function for host and device. Loops have fixed trip counts and read a
// local copy of the quants, so that a store to the output cannot alias a later load and the compiler
// vectorises them.
//
// FP16: sign 1, exponent 5, fraction 10 bits. Exponent 0 is fraction * 2^-24 (subnormal), 31 is infinity or
// NaN, otherwise the float has the same fraction and an exponent larger by 127 - 15 = 112.
#pragma once

#include "gg/core/device.hpp"

namespace gg::format {

/// Sizes and offsets in bytes.
using Size = decltype(sizeof(0));

/// Two bytes at any address.
GG_HD GG_INLINE unsigned load_u16(const unsigned char* p) {
#if defined(__CUDA_ARCH__)
    return p[0] | p[1] << 8;
#else
    unsigned short value;
    __builtin_memcpy(&value, p, 2);
    return value;
#endif
}

/// Four bytes at any address.
GG_HD GG_INLINE unsigned load_u32(const unsigned char* p) {
#if defined(__CUDA_ARCH__)
    return load_u16(p) | load_u16(p + 2) << 16;
#else
    unsigned value;
    __builtin_memcpy(&value, p, 4);
    return value;
#endif
}

/// The value of FP16 bits (the low 16 of `half`), exact; infinities and the fraction of NaNs are kept, and
/// NaNs become quiet on hardware that does so.
GG_HD GG_INLINE float half_to_float(unsigned half) {
#if defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<unsigned short>(half)));
    return value;
#else
    // No branch, and no arithmetic on subnormal floats, which is slow on many processors.
    const unsigned magnitude = half & 0x7fffu;
    const unsigned special = 0u - (magnitude >> 10 == 31u);
    const unsigned subnormal = 0u - (magnitude >> 10 == 0u);
    const unsigned normal_bits = (magnitude << 13) + (112u << 23) + (special & 112u << 23);
    const unsigned subnormal_bits = float_bits(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24f);
    return float_from_bits((normal_bits & ~subnormal) | (subnormal_bits & subnormal) |
                           (half & 0x8000u) << 16);
#endif
}

/// 0, which g++ does not know: a shift by j plus this stays one vector shift where it would otherwise unroll
/// the loop over j and shift by each constant.
GG_HD GG_INLINE int opaque_zero() {
    int zero = 0;
#if !defined(__CUDACC__) && !defined(__clang__)
    asm("" : "+r"(zero));
#endif
    return zero;
}

/// Elements that one decode loop handles where a register holds `floats`: g++ makes the best code from one
/// register at a time, clang from loops as long as possible.
GG_HD constexpr int loop_lanes(int floats) {
#if defined(__clang__) && !defined(__CUDACC__)
    return floats < 32 ? 32 : floats;
#else
    return floats;
#endif
}

/// How decoding is compiled; the bits are the same for every choice. Portable suits any processor; x86.hpp
/// has others, for functions that are compiled for more.
struct Portable {
    static constexpr int lanes = loop_lanes(16);
    static constexpr bool widens = false;  ///< whether it has a function to widen `lanes` bytes to ints
    /// The value of FP16 bits.
    GG_HD GG_INLINE static float half(unsigned bits) { return half_to_float(bits); }
};

/// The FP16 at any address.
template <class Target = Portable>
GG_HD GG_INLINE float load_half(const unsigned char* p) {
    return Target::half(load_u16(p));
}

/// N bytes, copied before anything is stored. g++ makes one wide load (vpmovzxbd) of bytes widened by
/// assignments that are written out one by one, where the Target has nothing better, whereas it vectorises a
/// loop that mixes bytes and floats four floats at a time. clang vectorises such a loop well.
template <class Target, int N, class Byte = unsigned char>
struct Ints {
#if defined(__clang__) && !defined(__CUDACC__)
    Byte at[N];
    GG_HD GG_INLINE explicit Ints(const unsigned char* p) {
        __builtin_memcpy(at, p, N);
    }
#else
    int at[N];
    GG_HD GG_INLINE explicit Ints(const unsigned char* p) {
        if constexpr (Target::widens)
            Target::template widen<Byte>(p, at);
        else
            widen<N>(p);
    }
#endif
    GG_HD GG_INLINE int operator[](int i) const {
        return at[i];
    }

  private:
    template <int count>
    GG_HD GG_INLINE void widen(const unsigned char* p) {
        if constexpr (count > 1) widen<count - 1>(p);
        at[count - 1] = static_cast<Byte>(p[count - 1]);
    }
};

/// What formats with 32 elements a block share: chunk i of a row is its block i.
template <class Format, int block_bytes>
struct Block32 {
    static constexpr int elements = 32;
    static constexpr int bytes = block_bytes;
    static constexpr int chunk = 32;

    /// Elements [32 * index, 32 * index + 32) of the row that starts at `row`.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode_chunk(const unsigned char* row, int index, float* out) {
        Format::template decode<Target>(row + static_cast<Size>(index) * bytes, out);
    }
};

/// What formats with 256 elements a block share: a block is eight chunks, and Format::decode_part(block,
/// part, out) decodes one of them.
template <class Format, int block_bytes>
struct Block256 {
    static constexpr int elements = 256;
    static constexpr int bytes = block_bytes;
    static constexpr int chunk = 32;

    /// One whole block.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode(const unsigned char* block, float* out) {
        for (int part = 0; part < 8; ++part)
            Format::template decode_part<Target>(block, part, out + 32 * part);
    }

    /// Elements [32 * index, 32 * index + 32) of the row that starts at `row`.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode_chunk(const unsigned char* row, int index, float* out) {
        const unsigned chunk_index = static_cast<unsigned>(index);
        Format::template decode_part<Target>(row + static_cast<Size>(chunk_index / 8) * bytes,
                                             static_cast<int>(chunk_index % 8), out);
    }
};

}  // namespace gg::format
