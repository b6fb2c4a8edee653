// MXFP4 as GGUF stores it: 32 elements in 17 bytes: E8M0 scale e, 16 bytes q. The low nibble of q[j] is
// element j, the high nibble element j + 16. A nibble is E2M1: bit 3 the sign, the other three the magnitude
// 0, .5, 1, 1.5, 2, 3, 4, 6; code 8 is -0. Element = E2M1 * 2^(e - 127), exact in a float or infinite when
// too large. e = 255 is NaN, and so are its 32 elements. (OCP Microscaling Formats 1.0; ggml's block_mxfp4.)
#pragma once

#include "gg/format/nibbles.hpp"

namespace gg::format {

/// 32 elements in 17 bytes. Element = E2M1 * 2^(e - 127).
struct MXFP4 : NibbleBlock<MXFP4, 17> {
    /// The header of a block.
    struct Scale {
        float half;  ///< 2^(e - 128)
        /// Twice the magnitude is max(c, 2c - 4, 4c - 16) for c = 0 .. 7.
        GG_HD GG_INLINE float value(int code, int) const {
            const int c = code & 7;
            const int steep = 4 * c - 16 > 2 * c - 4 ? 4 * c - 16 : 2 * c - 4;
            const int twice = c > steep ? c : steep;
            return float_from_bits(float_bits(static_cast<float>(twice) * half) |
                                   static_cast<unsigned>(code & 8) << 28);
        }
    };
    /// Of an E8M0 byte. Kept at half its value so that twice the magnitude, an integer, multiplies it.
    GG_HD GG_INLINE static Scale scale_of_exponent(unsigned e) {
        const unsigned normal = e == 255 ? 0x7fc00000u : (e - 1) << 23;
        return {float_from_bits(e < 2 ? 0x00200000u << e : normal)};
    }
    /// Reads the header of a block.
    template <class Target>
    GG_HD GG_INLINE static Scale scale_of(const unsigned char* block) {
        return scale_of_exponent(block[0]);
    }
};

}  // namespace gg::format
