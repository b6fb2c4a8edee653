// Q6_K: 256 elements in 210 bytes: 128 bytes q, 64 bytes h, 16 signed bytes of scales, FP16 d. Each half of
// the block (128 elements, 64 bytes of q, 32 of h) holds four parts of 32: part p has the low (p < 2) or high
// nibbles of the 32 bytes of q at 32 (p & 1), and bits 2 p, 2 p + 1 of the 32 bytes of h above them. Scales
// are for 16 elements. Element = d * scale * (6 bits - 32): at most 11 + 7 + 5 significant bits, exact in a
// float. (ggml's block_q6_K.)
#pragma once

#include "gg/format/bytes.hpp"

namespace gg::format {

/// 256 elements in 210 bytes.
struct Q6_K : Block256<Q6_K, 210> {
    /// Elements [32 * part, 32 * part + 32) of a block.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode_part(const unsigned char* block, int part, float* out) {
        decode_lanes<Target, 0>(block, part, out);
    }

  private:
    template <class Target, int first>
    GG_HD GG_INLINE static void decode_lanes(const unsigned char* block, int part, float* __restrict out) {
        const int half = part >> 2;
        constexpr int lanes = Target::lanes < 16 ? Target::lanes : 16;
        const Ints<Target, lanes> q(block + 64 * half + 32 * (part & 1) + first);
        const Ints<Target, lanes> h(block + 128 + 32 * half + first);
        const int q_shift = 4 * (part >> 1 & 1);
        const int h_shift = 2 * (part & 3);
        const int scale = static_cast<signed char>(block[192 + 2 * part + first / 16]);
        const float d = load_half<Target>(block + 208) * static_cast<float>(scale);
        for (int j = 0; j < lanes; ++j) {
            const int quant = (q[j] >> q_shift & 15) | (h[j] >> h_shift & 3) << 4;
            out[first + j] = d * static_cast<float>(quant - 32);
        }
        if constexpr (first + lanes < 32) decode_lanes<Target, first + lanes>(block, part, out);
    }
};

}  // namespace gg::format
