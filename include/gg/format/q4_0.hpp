// Q4_0: 32 elements in 18 bytes: FP16 d, 16 bytes q. The low nibble of q[j] is element j, the high nibble
// element j + 16. Element = d * (nibble - 8), exact in a float. (ggml's block_q4_0.)
#pragma once

#include "gg/format/nibbles.hpp"

namespace gg::format {

/// 32 elements in 18 bytes. Element = d * (nibble - 8).
struct Q4_0 : NibbleBlock<Q4_0, 18> {
    /// The header of a block.
    struct Scale {
        float d;
        GG_HD GG_INLINE float value(int code, int) const { return d * static_cast<float>(code - 8); }
    };
    /// Reads the header of a block.
    template <class Target>
    GG_HD GG_INLINE static Scale scale_of(const unsigned char* block) {
        Scale scale;  // nvcc loses the braces of a list with one element in its host code
        scale.d = load_half<Target>(block);
        return scale;
    }
};

}  // namespace gg::format
