// Q5_1: 32 elements in 24 bytes: FP16 d, FP16 m, 32 bits h, 16 bytes q. Element j has bit j of h above the
// low nibble of q[j], element j + 16 has bit j + 16 of h above the high nibble. Element = d * 5 bits + m. The
// product has 16 significant bits and is exact in a float, so only the addition rounds and a fused
// multiply-add gives the same bits. (ggml's block_q5_1.)
#pragma once

#include "gg/format/nibbles.hpp"

namespace gg::format {

/// 32 elements in 24 bytes.
struct Q5_1 : NibbleBlock<Q5_1, 24> {
    /// The header of a block.
    struct Scale {
        float d, m;
        unsigned h;
        int first_bit;
        GG_HD GG_INLINE float value(int code, int j) const {
            return d * static_cast<float>(code | static_cast<int>(h >> (j + first_bit) & 1) << 4) + m;
        }
    };
    /// Reads the header of a block.
    template <class Target>
    GG_HD GG_INLINE static Scale scale_of(const unsigned char* block) {
        return {load_half<Target>(block), load_half<Target>(block + 2), load_u32(block + 4), opaque_zero()};
    }
};

}  // namespace gg::format
