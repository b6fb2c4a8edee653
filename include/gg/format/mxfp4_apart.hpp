// MXFP4 as safetensors files store it: 16-byte groups of quants and E8M0 scales in two arrays. Byte k of a
// group holds element 2 k in its low nibble and element 2 k + 1 in its high nibble; the codes are those of
// mxfp4.hpp. In a fused gate-and-up matrix the even rows are gate rows, the odd ones up rows. GGUF's block is
// the scale and then the same nibbles, element j beside element j + 16.
#pragma once

#include "gg/format/mxfp4.hpp"

namespace gg::format {

/// 32 floats from 16 quant bytes in safetensors order and their scale.
GG_HD GG_INLINE void decode_mxfp4_apart(const unsigned char* quants, unsigned char exponent,
                                        float* __restrict out) {
    const MXFP4::Scale scale = MXFP4::scale_of_exponent(exponent);
    for (int j = 0; j < 32; ++j) out[j] = scale.value(quants[j / 2] >> 4 * (j & 1) & 15, j);
}

/// `count` groups to GGUF blocks: quants [count, 16] and exponents [count] to blocks [count, 17].
GG_HD inline void join_mxfp4(const unsigned char* quants, const unsigned char* exponents, Size count,
                             unsigned char* blocks) {
    for (Size i = 0; i < count; ++i) {
        const unsigned char* q = quants + 16 * i;
        unsigned char* block = blocks + MXFP4::bytes * i;
        block[0] = exponents[i];
        for (int k = 0; k < 8; ++k) {
            block[1 + 2 * k] = static_cast<unsigned char>((q[k] & 15) | q[k + 8] << 4);
            block[2 + 2 * k] = static_cast<unsigned char>(q[k] >> 4 | (q[k + 8] & 240));
        }
    }
}

/// The inverse of join_mxfp4.
GG_HD inline void split_mxfp4(const unsigned char* blocks, Size count, unsigned char* quants,
                              unsigned char* exponents) {
    for (Size i = 0; i < count; ++i) {
        const unsigned char* block = blocks + MXFP4::bytes * i;
        unsigned char* q = quants + 16 * i;
        exponents[i] = block[0];
        for (int k = 0; k < 8; ++k) {
            q[k] = static_cast<unsigned char>((block[1 + 2 * k] & 15) | block[2 + 2 * k] << 4);
            q[k + 8] = static_cast<unsigned char>(block[1 + 2 * k] >> 4 | (block[2 + 2 * k] & 240));
        }
    }
}

/// A fused matrix of 2 * rows rows, each of `row_groups` groups, to the GGUF blocks of its two halves: row 2
/// r becomes row r of `gate`, row 2 r + 1 row r of `up`, both [rows, row_groups, 17].
GG_HD inline void join_mxfp4_gate_up(const unsigned char* quants, const unsigned char* exponents, Size rows,
                                     Size row_groups, unsigned char* gate, unsigned char* up) {
    for (Size row = 0; row < 2 * rows; ++row)
        join_mxfp4(quants + 16 * row_groups * row, exponents + row_groups * row, row_groups,
                   (row % 2 ? up : gate) + MXFP4::bytes * row_groups * (row / 2));
}

}  // namespace gg::format
