// Floats to blocks of Q8_0 and MXFP4, with the bits that ggml's reference and the PyPI package gguf give.
//
// Q8_0: d = max|x| / 127 in float, stored as FP16; q = x * (1 / d) rounded to the nearest, halves away from
// zero. MXFP4: e = floor(log2 max|x|) - 2 + 127, at least 0, with the logarithm rounded to float before the
// floor, as ggml has it: amounts just below a power of two take that power's scale. Each element takes the
// nearest code, the smaller magnitude in a tie, and +0 for what rounds to zero. (ggml wraps a negative e;
// here it is 0.)
//
// Errors: gg::Error (invalid_request) for infinities and NaNs, and in Q8_0 where d is too large for FP16.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "gg/core/error.hpp"
#include "gg/format/encode_floats.hpp"
#include "gg/format/mxfp4.hpp"
#include "gg/format/q8_0.hpp"

namespace gg::format {

/// The largest magnitude of 32 elements; throws where one is infinite or NaN. `format` is named in the
/// message.
inline float largest_magnitude(const float* x, const char* format) {
    unsigned largest = 0;
    for (int j = 0; j < 32; ++j) {
        const unsigned magnitude = float_bits(x[j]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    if (largest >= 0x7f800000u)
        throw Error(ErrorCode::invalid_request, {.file = {},
                                                 .field = format,
                                                 .expected = "finite elements to encode",
                                                 .found = "infinity or NaN",
                                                 .next_step = {}});
    return float_from_bits(largest);
}

/// 32 floats to one block of 34 bytes.
inline void encode_q8_0(const float* x, unsigned char* block) {
    const float largest = largest_magnitude(x, "Q8_0");
    const float d = largest / 127.0f;
    const unsigned half = float_to_half(d);
    if (half >= 0x7c00u)
        throw Error(ErrorCode::invalid_request, {.file = {},
                                                 .field = "Q8_0",
                                                 .expected = "magnitudes below 8321040",
                                                 .found = std::to_string(largest),
                                                 .next_step = "use BF16 or F32"});
    // Below 2^-128 the reciprocal overflows; d is 0 in FP16 from 2^-25 on.
    const float inverse = d < 0x1p-127f ? 0.0f : 1.0f / d;
    block[0] = static_cast<unsigned char>(half & 255u);
    block[1] = static_cast<unsigned char>(half >> 8);
    for (int j = 0; j < 32; ++j) block[2 + j] = static_cast<unsigned char>(std::lround(x[j] * inverse));
}

/// The E2M1 code nearest to x / (2 * half), where half is 2^(e - 128).
inline unsigned nearest_e2m1(float x, MXFP4::Scale scale) {
    const float magnitude = std::fabs(x);
    unsigned best = 0;
    float least = magnitude;
    for (unsigned code = 1; code < 8; ++code) {
        const float error = std::fabs(scale.value(static_cast<int>(code), 0) - magnitude);
        best = error < least ? code : best;
        least = error < least ? error : least;
    }
    return best == 0 || x > 0 ? best : best | 8u;
}

/// 32 floats to one block of 17 bytes.
inline void encode_mxfp4(const float* x, unsigned char* block) {
    const float largest = largest_magnitude(x, "MXFP4");
    unsigned e = 0;
    if (largest > 0) {
        const float power =
            std::floor(static_cast<float>(std::log2(static_cast<double>(largest)))) + (127 - 2);
        e = power > 0 ? static_cast<unsigned>(power) : 0;
    }
    block[0] = static_cast<unsigned char>(e);
    const MXFP4::Scale scale = MXFP4::scale_of_exponent(e);
    for (int j = 0; j < 16; ++j)
        block[1 + j] =
            static_cast<unsigned char>(nearest_e2m1(x[j], scale) | nearest_e2m1(x[j + 16], scale) << 4);
}

}  // namespace gg::format
