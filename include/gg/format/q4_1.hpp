// Q4_1: 32 elements in 20 bytes: FP16 d, FP16 m, 16 bytes q. The low nibble of q[j] is element j, the high
// nibble element j + 16. Element = d * nibble + m. The product has 15 significant bits and is exact in a
// float, so only the addition rounds and a fused multiply-add gives the same bits. (ggml's block_q4_1.)
#pragma once

#include "gg/format/nibbles.hpp"

namespace gg::format {

/// 32 elements in 20 bytes. Element = d * nibble + m.
struct Q4_1 : NibbleBlock<Q4_1, 20> {
    /// The header of a block.
    struct Scale {
        float d, m;
        GG_HD GG_INLINE float value(int code, int) const { return d * static_cast<float>(code) + m; }
    };
    /// Reads the header of a block.
    template <class Target>
    GG_HD GG_INLINE static Scale scale_of(const unsigned char* block) {
        return {load_half<Target>(block), load_half<Target>(block + 2)};
    }
};

}  // namespace gg::format
