// Targets for decode functions that are inlined into code compiled for AVX2 with F16C, or for AVX-512 (by a
// target attribute, so that no compiler flag is needed): a loop fills one register, and scales are converted
// by the processor. The caller has checked that the processor has these instructions (every one with AVX2 has
// F16C). Bits are those of Portable, except that signalling NaNs become quiet.
//
// The instructions are assembly because a function without the target attribute may not name their
// intrinsics. Widening in one opaque instruction also keeps g++ from taking the bytes apart again when the
// decode is inlined into a dot product: without it, most formats there are four times slower.
#pragma once

#include "gg/format/bytes.hpp"

#if defined(__x86_64__)

namespace gg::format {

/// Eight floats a register; needs AVX2 and F16C.
struct Avx2 {
    static constexpr int lanes = loop_lanes(8);
    static constexpr bool widens = true;

    /// The value of FP16 bits.
    GG_INLINE static float half(unsigned bits) {
        float value;
        asm("vcvtph2ps %1, %0" : "=x"(value) : "x"(float_from_bits(bits)));
        return value;
    }

    /// Eight bytes, signed or not as Byte is, to ints.
    template <class Byte>
    GG_INLINE static void widen([[maybe_unused]] const unsigned char* p, [[maybe_unused]] int* out) {
#if !defined(__clang__)
        typedef int Vector __attribute__((vector_size(32)));
        typedef const unsigned char(*Source)[8];
        Vector v;
        if constexpr (static_cast<Byte>(-1) < 0)
            asm("vpmovsxbd %1, %0" : "=x"(v) : "m"(*reinterpret_cast<Source>(p)));
        else
            asm("vpmovzxbd %1, %0" : "=x"(v) : "m"(*reinterpret_cast<Source>(p)));
        __builtin_memcpy(out, &v, sizeof v);
#endif
    }
};

/// Sixteen floats a register; needs AVX-512F and F16C.
struct Avx512 : Avx2 {
    static constexpr int lanes = loop_lanes(16);

    /// Sixteen bytes, signed or not as Byte is, to ints.
    template <class Byte>
    GG_INLINE static void widen([[maybe_unused]] const unsigned char* p, [[maybe_unused]] int* out) {
#if !defined(__clang__)
        typedef int Vector __attribute__((vector_size(64)));
        typedef const unsigned char(*Source)[16];
        Vector v;
        if constexpr (static_cast<Byte>(-1) < 0)
            asm("vpmovsxbd %1, %0" : "=v"(v) : "m"(*reinterpret_cast<Source>(p)));
        else
            asm("vpmovzxbd %1, %0" : "=v"(v) : "m"(*reinterpret_cast<Source>(p)));
        __builtin_memcpy(out, &v, sizeof v);
#endif
    }
};

}  // namespace gg::format

#endif
