// Activations as a tensor-core product takes them. Weights in MXFP4, Q8_0 and FP16 multiply FP16 activations;
// weights in BF16 multiply an activation as two BF16 numbers, high and low part, since one would keep 8
// significant bits only. A buffer is [planes][rows][stride] of 16-bit floats, stride the width rounded up to
// 64, the padding zero.
//
// FP16 ends at 65504. A larger activation, which a norm never gives and an activation function hardly ever,
// becomes +-65504 and is counted, so that the user can be told.
#pragma once

#include "gg/cuda/primitives.cuh"
#include "gg/cuda/tile_geometry.hpp"

namespace gg::cuda {

/// One FP16 number.
struct HalfOperand {
    static constexpr int planes = 1;

    /// Two neighbours as 32 bits of each plane; counts what does not fit.
    GG_DEVICE static void encode(float low, float high, unsigned (&bits)[1], int* overflows) {
        const float limit = 65504.0f;
        if (low > limit || low < -limit || high > limit || high < -limit) {
            atomicAdd(overflows, 1);
            low = low > limit ? limit : low < -limit ? -limit : low;
            high = high > limit ? limit : high < -limit ? -limit : high;
        }
        bits[0] = pack_half(low, high);
    }
};

/// The sum of two BF16 numbers: 16 significant bits.
struct BfloatPairOperand {
    static constexpr int planes = 2;

    GG_DEVICE static void encode(float low, float high, unsigned (&bits)[2], int*) {
        bits[0] = pack_bfloat(low, high);
        bits[1] = pack_bfloat(low - low_bfloat_value(bits[0]), high - high_bfloat_value(bits[0]));
    }
};

/// Stores two neighbours at element `i` (even) of a row, and in the further planes `plane` elements on.
template <class Operand>
GG_DEVICE void store_operand(unsigned short* row, Size plane, Size i, float low, float high, int* overflows) {
    unsigned bits[Operand::planes];
    Operand::encode(low, high, bits, overflows);
#pragma unroll
    for (int p = 0; p < Operand::planes; ++p) *reinterpret_cast<unsigned*>(row + p * plane + i) = bits[p];
}

}  // namespace gg::cuda
