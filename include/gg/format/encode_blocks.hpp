// Floats to blocks of Q8_0 and MXFP4, with the bits that ggml's reference and the PyPI package gguf give.
//
// Q8_0: d = max|x| / 127 in float, stored as FP16; q = x * (1 / d) rounded to the nearest, halves away from
// zero. MXFP4: e = floor(log2 max|x|) - 2 + 127, at least 0, with the logarithm rounded to float before the
// floor, as ggml has it: amounts just below a power of two take that power's scale. Each element takes the
// nearest code, the smaller magnitude in a tie, and +0 for what rounds to zero. (ggml wraps a negative e;
// here it is 0.)
//
// Floats are finite. Errors: gg::Error (invalid_request) in Q8_0 where d is too large for FP16.
#pragma once

#include <cmath>

#include "gg/format/encode_scale.hpp"
#include "gg/format/mxfp4.hpp"
#include "gg/format/q8_0.hpp"

namespace gg::format {

/// 32 floats to one block of 34 bytes.
inline void encode_q8_0(const float* x, unsigned char* block) {
    const float largest = std::fabs(largest_element<32>(x));
    const float d = largest / 127.0f;
    store_scale(d, block, "Q8_0", largest);
    const float inverse = reciprocal(d);
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
    const float largest = std::fabs(largest_element<32>(x));
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
