// Random rows of every format, with values that FP16 can hold.
#pragma once

#include <cmath>
#include <cstddef>
#include <random>

#include "cuda/tiles.hpp"
#include "gg/format/encode_floats.hpp"
#include "gg/format/validate.hpp"

namespace cuda_test {

/// Four bytes, little-endian.
inline void put_float(unsigned char* at, float value) {
    const unsigned bits = gg::float_bits(value);
    for (int i = 0; i < 4; ++i) at[i] = static_cast<unsigned char>(bits >> 8 * i);
}

/// Fills whole blocks. Among FP16 scales are zeros, negative ones and subnormals; among the values are some
/// that FP16 flushes to zero.
template <class Format>
void fill_random(unsigned char* bytes, std::size_t count, std::mt19937& random) {
    using namespace gg::format;
    constexpr gg::DType type = dtype_of<Format>;
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<unsigned char>(random());
    std::normal_distribution<float> normal;
    for (std::size_t at = 0; at + Format::bytes <= count; at += Format::bytes) {
        unsigned char* block = bytes + at;
        const float value = std::ldexp(normal(random), static_cast<int>(random() % 40) - 28);
        if constexpr (type == gg::DType::f32) {
            put_float(block, value);
        } else if constexpr (type == gg::DType::f16) {
            put_16(block, float_to_half(value));
        } else if constexpr (type == gg::DType::bf16) {
            put_16(block, float_to_bfloat(value));
        } else if constexpr (type == gg::DType::mxfp4) {
            block[0] = static_cast<unsigned char>(95 + random() % 46);  // 6 * 2^13 < 65504
        } else {
            constexpr HalfScales scales = half_scales<Format>();
            for (int i = 0; i < scales.count; ++i) {
                int bits = static_cast<int>(random() % 0x3C00u | (random() & 0x8000u));  // below 1
                if (random() % 16 == 0) bits &= 0x8000;
                put_16(block + scales.offset + 2 * i, bits);
            }
        }
    }
}

}  // namespace cuda_test
