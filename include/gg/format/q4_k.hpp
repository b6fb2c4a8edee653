// Q4_K: 256 elements in 144 bytes: FP16 d, FP16 dmin, 12 bytes of scales (k_scales.hpp), 128 bytes q.
// Elements 64 i + j and 64 i + 32 + j (j < 32) are the low and the high nibble of q[32 i + j]. Element = d *
// scale * nibble
// - dmin * minimum. The products have at most 21 significant bits and are exact in a float, so only the
// subtraction rounds and a fused multiply-add gives the same bits. (ggml's block_q4_K.)
#pragma once

#include "gg/format/k_scales.hpp"

namespace gg::format {

/// 256 elements in 144 bytes.
struct Q4_K : Block256<Q4_K, 144> {
    /// Elements [32 * part, 32 * part + 32) of a block.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode_part(const unsigned char* block, int part, float* out) {
        decode_nibbles<Target, 0>(KScale::of<Target>(block, part), block + 16 + 32 * (part >> 1),
                                  4 * (part & 1), out);
    }

  private:
    template <class Target, int first>
    GG_HD GG_INLINE static void decode_nibbles(const KScale& k, const unsigned char* quants, int shift,
                                               float* __restrict out) {
        const Ints<Target, Target::lanes> q(quants + first);
        for (int j = 0; j < Target::lanes; ++j)
            out[first + j] = k.scale * static_cast<float>(q[j] >> shift & 15) - k.minimum;
        if constexpr (first + Target::lanes < 32)
            decode_nibbles<Target, first + Target::lanes>(k, quants, shift, out);
    }
};

}  // namespace gg::format
