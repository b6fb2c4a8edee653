// The layout that most block formats of 32 elements share: a header with the scales, then 16 bytes of which
// byte j holds element j in its low nibble and element j + 16 in its high nibble.
#pragma once

#include "gg/format/bytes.hpp"

namespace gg::format {

/// Decodes such a block. Format::scale_of<Target>(block) reads the header; its value(code, j) is element j
/// when the nibble is `code`.
template <class Format, int block_bytes>
struct NibbleBlock : Block32<Format, block_bytes> {
    /// One block to 32 floats.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode(const unsigned char* block, float* out) {
        const auto scale = Format::template scale_of<Target>(block);
        decode_nibbles<Target, 0>(scale, block + (block_bytes - 16), out);
    }

  protected:
    template <class Target, int first, class Scale>
    GG_HD GG_INLINE static void decode_nibbles(const Scale& scale, const unsigned char* quants,
                                               float* __restrict out) {
        constexpr int lanes = Target::lanes < 16 ? Target::lanes : 16;
        const Ints<Target, lanes> q(quants + first);
        for (int j = 0; j < lanes; ++j) out[first + j] = scale.value(q[j] & 15, first + j);
        for (int j = 0; j < lanes; ++j) out[first + j + 16] = scale.value(q[j] >> 4, first + j + 16);
        if constexpr (first + lanes < 16) decode_nibbles<Target, first + lanes>(scale, quants, out);
    }
};

}  // namespace gg::format
