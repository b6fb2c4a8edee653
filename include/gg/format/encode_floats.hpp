// Float to FP16 and BF16, rounded to the nearest, ties to even. Too large becomes infinity (FP16 from 65520),
// NaN stays a quiet NaN with the upper bits of its fraction. One function for host and device; the device's
// NaNs are the canonical one.
#pragma once

#include "gg/core/device.hpp"

namespace gg::format {

/// The bits of the nearest FP16.
GG_HD GG_INLINE unsigned short float_to_half(float value) {
#if defined(__CUDA_ARCH__)
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    const unsigned bits = float_bits(value);
    const unsigned magnitude = bits & 0x7fffffffu;
    const unsigned nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
    // Half an FP16 ulp less one, plus the last bit that stays: the carry rounds to even.
    const unsigned rounded = ((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10);
    const unsigned normal = rounded > 0x7c00u ? 0x7c00u : rounded;
    // The ulp of floats from 0.5 to 1 is that of FP16 subnormals, 2^-24, so this addition rounds to it.
    const unsigned subnormal = float_bits(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    const unsigned finite = magnitude < 0x38800000u ? subnormal : normal;
    return static_cast<unsigned short>((magnitude > 0x7f800000u ? nan : finite) | (bits >> 16 & 0x8000u));
#endif
}

/// The bits of the nearest BF16.
GG_HD GG_INLINE unsigned short float_to_bfloat(float value) {
    const unsigned bits = float_bits(value);
    const unsigned nan = bits >> 16 | 0x40u;
    const unsigned rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return static_cast<unsigned short>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

}  // namespace gg::format
