// IQ4_NL: 32 elements in 18 bytes: FP16 d, 16 bytes q. The low nibble of q[j] is element j, the high nibble
// element j + 16. Element = d * table[nibble], exact in a float, with the table
// -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113. (ggml's block_iq4_nl.)
#pragma once

#include "gg/format/nibbles.hpp"

namespace gg::format {

/// 32 elements in 18 bytes.
struct IQ4_NL : NibbleBlock<IQ4_NL, 18> {
    /// The header of a block.
    struct Scale {
        float d;
        GG_HD GG_INLINE float value(int code, int) const { return d * static_cast<float>(table(code)); }
    };
    /// Reads the header of a block.
    template <class Target>
    GG_HD GG_INLINE static Scale scale_of(const unsigned char* block) {
        Scale scale;  // nvcc loses the braces of a list with one element in its host code
        scale.d = load_half<Target>(block);
        return scale;
    }

    /// The table's entry for a code 0 to 15: four signed bytes a word, chosen and shifted instead of loaded,
    /// so that a loop over codes becomes vector code without gathers.
    GG_HD GG_INLINE static int table(int code) {
        const unsigned w0 = word(-127, -104, -83, -65), w1 = word(-49, -35, -22, -10);
        const unsigned w2 = word(1, 13, 25, 38), w3 = word(53, 69, 89, 113);
        const unsigned bit_2 = 0u - static_cast<unsigned>(code >> 2 & 1);
        const unsigned bit_3 = 0u - static_cast<unsigned>(code >> 3 & 1);
        const unsigned low = w0 ^ (bit_2 & (w0 ^ w1));
        const unsigned high = w2 ^ (bit_2 & (w2 ^ w3));
        return static_cast<int>((low ^ (bit_3 & (low ^ high))) << (24 - 8 * (code & 3))) >> 24;
    }

  private:
    GG_HD GG_INLINE static unsigned word(int a, int b, int c, int d) {
        return (a & 255u) | (b & 255u) << 8 | (c & 255u) << 16 | (d & 255u) << 24;
    }
};

}  // namespace gg::format
