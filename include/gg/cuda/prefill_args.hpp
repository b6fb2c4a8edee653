// What the host passes to the kernels of prefill (and of the embedding). Plain structures, the same for the
// compiler of the host and of the device; the kernels' own headers say what they do with them.
#pragma once

#include "gg/cuda/rows.hpp"
#include "gg/cuda/store.hpp"

namespace gg::cuda {

struct EmbedArgs {
    const unsigned char* tokens_table;     ///< token_embd.weight as in the file
    const unsigned char* positions_table;  ///< position_embd.weight as in the file; null: none
    const Row* rows;                       ///< the rows; null: `tokens` from position `start` on
    const int* tokens;
    int start;
    float* x;                         ///< [rows][hidden]
    const double* inverse_frequency;  ///< [head_dim / 2]; null: no rotary embedding
    double magnitude;
    float* cosines;  ///< [rows][head_dim / 2]
    float* sines;    ///< likewise
};

template <class Norm>
struct NormArgs {
    typename Norm::template Weights<CudaStore> weights;
    const float* x;  ///< [rows][hidden]
    int rows;
    unsigned short* operand;           ///< [planes][rows][operand_stride(hidden)]
    unsigned long long operand_plane;  ///< elements from one plane to the next
    int* overflows;
};

/// A product's pointers and counts. A pointer that the epilogue does not name may be null.
struct ProductArgs {
    const unsigned char* tiles;        ///< [experts][row tiles][column tiles]
    unsigned long long expert_bytes;   ///< from one expert's tiles to the next's
    const unsigned char* row_units;    ///< [experts][row tiles][16], of scaled formats (warpgroup_tile.cuh)
    const unsigned short* x;           ///< operand buffer
    unsigned long long x_plane;        ///< elements from one plane to the next
    const int* x_rows;                 ///< the row of X for each row of the product; null: the same
    const int* offsets;                ///< [experts + 1]: where each expert's rows begin; null: not grouped
    int experts;                       ///< 0 if not grouped
    int rows;                          ///< of the product, over all experts
    const float* bias;                 ///< [experts][width], gated: of the gate; null: none
    const float* up_bias;              ///< gated: [experts][width]; null: none
    float* y;                          ///< [rows][width]
    unsigned short* operand;           ///< operand buffer [planes][rows][operand_stride(width)]
    unsigned long long operand_plane;  ///< elements from one plane of it to the next
    int* overflows;                    ///< counts what FP16 could not hold
};

template <class Norm>
struct RouterArgs {
    typename Norm::template Weights<CudaStore> norm;
    const float* x;       ///< [rows][hidden]
    const float* router;  ///< [experts][hidden]
    const float* bias;    ///< [experts]; null: none
    int rows;
    int* expert;    ///< [rows][used]
    float* weight;  ///< [rows][used]
};

struct ExpertSortArgs {
    const int* expert;  ///< [rows][used]
    int rows;
    int used;
    int* offsets;  ///< [experts + 1]: where each expert's pairs begin; the last is where all end
    int* x_rows;   ///< [rows * used]: the row of each sorted pair
    int* place;    ///< [rows * used]: where each pair went
};

struct CombineArgs {
    const float* y;       ///< [rows * used][hidden], sorted
    const int* place;     ///< [rows][used]: where a row's ranks lie in y
    const float* weight;  ///< [rows][used]
    float* x;             ///< [rows][hidden]
};

}  // namespace gg::cuda
