// Q5_0: 32 elements in 22 bytes: FP16 d, 32 bits h, 16 bytes q. Element j has bit j of h above the low nibble
// of q[j], element j + 16 has bit j + 16 of h above the high nibble. Element = d * (5 bits - 16), exact in a
// float. (ggml's block_q5_0.)
#pragma once

#include "gg/format/nibbles.hpp"

namespace gg::format {

/// 32 elements in 22 bytes.
struct Q5_0 : NibbleBlock<Q5_0, 22> {
    /// The header of a block.
    struct Scale {
        float d;
        unsigned h;
        int first_bit;
        GG_HD GG_INLINE float value(int code, int j) const {
            return d * static_cast<float>((code | static_cast<int>(h >> (j + first_bit) & 1) << 4) - 16);
        }
    };
    /// Reads the header of a block.
    template <class Target>
    GG_HD GG_INLINE static Scale scale_of(const unsigned char* block) {
        return {load_half<Target>(block), load_u32(block + 2), opaque_zero()};
    }
};

}  // namespace gg::format
