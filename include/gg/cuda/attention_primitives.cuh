// What the attention kernels need beside primitives.cuh: operands for tensor cores from shared memory, powers
// of two, FP16 that saturates, and the output operand.
#pragma once

#include "gg/core/math.hpp"
#include "gg/cuda/copies.cuh"
#include "gg/cuda/operand.cuh"

namespace gg::cuda {

/// 2^x, relative error below 2^-22; 0 below 2^-126, and for -infinity.
GG_DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// Four matrices of 8 rows x 16 bytes: lane 8i + r names row r of matrix i, lane 4g + t receives of each
/// matrix the FP16 pair 2t, 2t + 1 of row g.
GG_DEVICE void load_matrices(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// The same, transposed: lane 4g + t receives column g of rows 2t and 2t + 1.
GG_DEVICE void load_matrices_transposed(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// The low halves of two registers as one, or the high ones.
template <bool high>
GG_DEVICE unsigned pair_halves(unsigned a, unsigned b) {
    return __byte_perm(a, b, high ? 0x7632 : 0x5410);
}

/// The shared memory that the launch gives.
GG_DEVICE unsigned char* dynamic_shared() {
    extern __shared__ __align__(128) unsigned char shared[];
    return shared;
}

inline constexpr float largest_half = 65504.0f;
inline constexpr float log2_e = 1.44269504088896341f;

GG_DEVICE float saturate_to_half(float x) {
    return x > largest_half ? largest_half : x < -largest_half ? -largest_half : x;
}

/// Two neighbours as FP16 bits, saturated as HalfOperand does it.
GG_DEVICE unsigned pack_half_saturated(float low, float high) {
    return pack_half(saturate_to_half(low), saturate_to_half(high));
}

/// Stores one number at element `i` of a row of an operand.
template <class Operand>
GG_DEVICE void store_operand_element(unsigned short* row, Size plane, Size i, float value, int* overflows) {
    unsigned bits[Operand::planes];
    Operand::encode(value, 0.0f, bits, overflows);
#pragma unroll
    for (int p = 0; p < Operand::planes; ++p) row[p * plane + i] = static_cast<unsigned short>(bits[p]);
}

/// Stores elements d (even) and d + 1 of a head, those that the head has. A head of odd width may begin at an
/// odd element, and shares a pair with its neighbour.
template <class Operand, int head_dim>
GG_DEVICE void store_head_pair(unsigned short* row, Size plane, int head, int d, float low, float high,
                               int* overflows) {
    if (d >= head_dim) return;
    const Size i = Size(head) * head_dim + d;
    if constexpr (head_dim % 2 == 0) {
        store_operand<Operand>(row, plane, i, low, high, overflows);
    } else {
        store_operand_element<Operand>(row, plane, i, low, overflows);
        if (d + 1 < head_dim) store_operand_element<Operand>(row, plane, i + 1, high, overflows);
    }
}

/// Zeroes the elements behind `width` of a row, by all threads of a block.
template <class Operand>
GG_DEVICE void zero_padding(unsigned short* row, Size plane, int width) {
    for (int i = width + static_cast<int>(threadIdx.x); i < operand_stride(width);
         i += static_cast<int>(blockDim.x))
        for (int p = 0; p < Operand::planes; ++p) row[p * plane + i] = 0;
}

/// Softmax weights are formed as 2^(x - largest + 14), all in powers of two: in FP16 those down to 2^-28 of
/// the largest keep all 11 bits, and the factor cancels in the quotient.
inline constexpr float weight_exponent = 14.0f;

/// What a softmax weight is relative to: the largest score so far, or 0 while no key was visible.
GG_DEVICE float softmax_reference(float largest) {
    return largest == -infinity() ? 0.0f : largest;
}

}  // namespace gg::cuda
