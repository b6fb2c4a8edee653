// The float types F32, F16 and BF16: little-endian, one element a block, rows of any length. A chunk is 32
// elements as in the block formats, and decode_tail serves a last chunk that is shorter. All are exact: BF16
// is the upper half of a float, FP16 is described in bytes.hpp.
#pragma once

#include "gg/format/bytes.hpp"

namespace gg::format {

/// Chunks of a float type; Format::decode reads one element.
template <class Format, int element_bytes>
struct FloatChunks {
    static constexpr int elements = 1;
    static constexpr int bytes = element_bytes;
    static constexpr int chunk = 32;

    /// 32 consecutive elements.
    GG_HD GG_INLINE static void decode_run(const unsigned char* __restrict p, float* __restrict out) {
        for (int j = 0; j < 32; ++j) Format::decode(p + j * element_bytes, out + j);
    }

    /// Elements [32 * index, 32 * index + 32) of the row that starts at `row`.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode_chunk(const unsigned char* row, int index, float* out) {
        decode_run(row + static_cast<Size>(index) * (32 * element_bytes), out);
    }

    /// The first `count` (0 to 32) elements of chunk `index`; the rest of the 32 outputs become 0.
    GG_HD GG_INLINE static void decode_tail(const unsigned char* row, int index, int count, float* out) {
        const unsigned char* p = row + static_cast<Size>(index) * (32 * element_bytes);
        for (int j = 0; j < 32; ++j) {
            out[j] = 0.0f;
            if (j < count) Format::decode(p + j * element_bytes, out + j);
        }
    }
};

/// IEEE single precision.
struct F32 : FloatChunks<F32, 4> {
    GG_HD GG_INLINE static void decode(const unsigned char* p, float* out) {
        *out = float_from_bits(load_u32(p));
    }
};

/// IEEE half precision.
struct F16 : FloatChunks<F16, 2> {
    GG_HD GG_INLINE static void decode(const unsigned char* p, float* out) { *out = load_half(p); }
};

/// The upper 16 bits of an IEEE single.
struct BF16 : FloatChunks<BF16, 2> {
    GG_HD GG_INLINE static void decode(const unsigned char* p, float* out) {
        *out = float_from_bits(load_u16(p) << 16);
    }
};

}  // namespace gg::format
