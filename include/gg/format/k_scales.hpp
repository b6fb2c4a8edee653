// The scales that Q4_K and Q5_K share: eight 6-bit scales and eight 6-bit minima in 12 bytes s. For part p <
// 4 the scale is the low 6 bits of s[p], the minimum the low 6 bits of s[p + 4]; for p >= 4 the low 4 bits of
// both are the nibbles of s[p + 4] (scale low, minimum high), their upper 2 bits the top bits of s[p - 4] and
// s[p].
#pragma once

#include "gg/format/bytes.hpp"

namespace gg::format {

/// Element = scale * quant - minimum. Both are exact: 11 bits of the FP16 times 6 bits.
struct KScale {
    float scale;
    float minimum;

    /// Of part 0 to 7 of the block that starts with FP16 d, FP16 dmin, 12 bytes of scales.
    template <class Target>
    GG_HD GG_INLINE static KScale of(const unsigned char* block, int part) {
        const unsigned char* s = block + 4;
        int scale = s[part & 3];
        int minimum = s[(part & 3) + 4];
        if (part < 4) {
            scale &= 63;
            minimum &= 63;
        } else {
            const int low = s[part + 4];
            scale = (low & 15) | (scale >> 6) << 4;
            minimum = low >> 4 | (minimum >> 6) << 4;
        }
        return {load_half<Target>(block) * static_cast<float>(scale),
                load_half<Target>(block + 2) * static_cast<float>(minimum)};
    }
};

}  // namespace gg::format
