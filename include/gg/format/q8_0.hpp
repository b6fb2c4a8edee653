// Q8_0: 32 elements in 34 bytes: FP16 d, 32 signed bytes q. Element j = d * q[j]; the product of 11 and 7
// significant bits is exact in a float. (ggml's block_q8_0.)
#pragma once

#include "gg/format/bytes.hpp"

namespace gg::format {

/// 32 elements in 34 bytes. Element = d * q.
struct Q8_0 : Block32<Q8_0, 34> {
    /// One block to 32 floats.
    template <class Target = Portable>
    GG_HD GG_INLINE static void decode(const unsigned char* block, float* out) {
        decode_bytes<Target, 0>(load_half<Target>(block), block + 2, out);
    }

  private:
    template <class Target, int first>
    GG_HD GG_INLINE static void decode_bytes(float d, const unsigned char* quants, float* __restrict out) {
        const Ints<Target, Target::lanes, signed char> q(quants + first);
        for (int j = 0; j < Target::lanes; ++j) out[first + j] = d * static_cast<float>(q[j]);
        if constexpr (first + Target::lanes < 32) decode_bytes<Target, first + Target::lanes>(d, quants, out);
    }
};

}  // namespace gg::format
