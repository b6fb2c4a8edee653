// Q5_K: 256 elements in 176 bytes: FP16 d, FP16 dmin, 12 bytes of scales (k_scales.hpp), 32 bytes h, 128
// bytes q. Elements 64 i + j and 64 i + 32 + j (j < 32) have the low and the high nibble of q[32 i + j], and
// bit 2 i or 2 i + 1 of h[j] above it. Element = d * scale * 5 bits - dmin * minimum. The products have at
// most 22 significant bits and are exact in a float, so only the subtraction rounds and a fused multiply-add
// gives the same bits. (ggml's block_q5_K.)
#pragma once

#include "gg/format/k_scales.hpp"

namespace gg::format {

/// 256 elements in 176 bytes.
struct Q5_K : Block256<Q5_K, 176> {
    /// Elements [32 * part, 32 * part + 32) of a block.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode_part(const unsigned char* block, int part, float* out) {
        decode_lanes<Target, 0>(KScale::of<Target>(block, part), block, part, out);
    }

  private:
    template <class Target, int first>
    GG_HD GG_INLINE static void decode_lanes(const KScale& k, const unsigned char* block, int part,
                                             float* __restrict out) {
        const Ints<Target, Target::lanes> h(block + 16 + first);
        const Ints<Target, Target::lanes> q(block + 48 + 32 * (part >> 1) + first);
        const int shift = 4 * (part & 1);
        for (int j = 0; j < Target::lanes; ++j) {
            const int quant = (q[j] >> shift & 15) | (h[j] >> part & 1) << 4;
            out[first + j] = k.scale * static_cast<float>(quant) - k.minimum;
        }
        if constexpr (first + Target::lanes < 32)
            decode_lanes<Target, first + Target::lanes>(k, block, part, out);
    }
};

}  // namespace gg::format
