// Floats to blocks of Q4_0, Q5_0, Q4_1 and Q5_1, with the bits that ggml's reference and the PyPI package
// gguf give.
//
// Q4_0 and Q5_0: d is the element of the largest magnitude, with its sign, over -8 or -16, so that it becomes
// code 0. Q4_1 and Q5_1: m is the least element, d = (greatest - least) / 15 or 31. Codes are rounded to the
// nearest by the unrounded d; FP16 d and m are stored.
//
// Floats are finite. Errors: gg::Error (invalid_request) where d or m is too large for FP16.
#pragma once

#include <algorithm>

#include "gg/format/encode_scale.hpp"
#include "gg/format/q4_0.hpp"
#include "gg/format/q4_1.hpp"
#include "gg/format/q5_0.hpp"
#include "gg/format/q5_1.hpp"

namespace gg::format {

/// trunc(value + offset) in floats, at most `top`. The sum in double, rounded once more, is the sum in float;
/// a compiler cannot fuse it with the product that made `value`.
inline unsigned char rounded_code(float value, double offset, int top) {
    const auto sum = static_cast<float>(static_cast<double>(value) + offset);
    return static_cast<unsigned char>(std::min(static_cast<int>(sum), top));
}

/// 32 codes as nibbles, and where codes have a fifth bit, those bits at `high`.
inline void store_codes(const unsigned char* codes, unsigned char* nibbles, unsigned char* high) {
    for (int j = 0; j < 16; ++j)
        nibbles[j] = static_cast<unsigned char>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
    for (int byte = 0; high && byte < 4; ++byte) {
        high[byte] = 0;
        for (int bit = 0; bit < 8; ++bit)
            high[byte] = static_cast<unsigned char>(high[byte] | (codes[8 * byte + bit] >> 4) << bit);
    }
}

/// Element = d * (code - half), with codes below 2 * half: 8 or 16.
template <int half>
inline void encode_symmetric(const float* x, unsigned char* block, const char* format) {
    const float extreme = largest_element<32>(x);
    const float d = extreme / -half;
    store_scale(d, block, format, extreme);
    const float inverse = reciprocal(d);
    unsigned char codes[32];
    for (int j = 0; j < 32; ++j) codes[j] = rounded_code(x[j] * inverse, half + 0.5, 2 * half - 1);
    constexpr bool five_bits = half == 16;
    store_codes(codes, block + (five_bits ? 6 : 2), five_bits ? block + 2 : nullptr);
}

/// Element = d * code + m, with codes up to `top`: 15 or 31.
template <int top>
inline void encode_with_minimum(const float* x, unsigned char* block, const char* format) {
    const float least = *std::min_element(x, x + 32);
    const float greatest = *std::max_element(x, x + 32);
    const float d = (greatest - least) / top;
    store_scale(d, block, format, largest_element<32>(x));
    store_scale(least, block + 2, format, least);
    const float inverse = reciprocal(d);
    unsigned char codes[32];
    for (int j = 0; j < 32; ++j) codes[j] = rounded_code((x[j] - least) * inverse, 0.5, top);
    constexpr bool five_bits = top == 31;
    store_codes(codes, block + (five_bits ? 8 : 4), five_bits ? block + 4 : nullptr);
}

/// 32 floats to one block of 18 bytes.
inline void encode_q4_0(const float* x, unsigned char* block) {
    encode_symmetric<8>(x, block, "Q4_0");
}
/// 32 floats to one block of 22 bytes.
inline void encode_q5_0(const float* x, unsigned char* block) {
    encode_symmetric<16>(x, block, "Q5_0");
}
/// 32 floats to one block of 20 bytes.
inline void encode_q4_1(const float* x, unsigned char* block) {
    encode_with_minimum<15>(x, block, "Q4_1");
}
/// 32 floats to one block of 24 bytes.
inline void encode_q5_1(const float* x, unsigned char* block) {
    encode_with_minimum<31>(x, block, "Q5_1");
}

}  // namespace gg::format
