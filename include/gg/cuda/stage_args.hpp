// What the host passes to the stages of decoding. Plain structures, the same for the compiler of the host and
// of the device; sizes and the meaning of each buffer are in the stage's own header.
#pragma once

#include "gg/cuda/rows.hpp"
#include "gg/cuda/store.hpp"

namespace gg::cuda {

/// The residual stream: partial sums [slots][rows][hidden], summed in slot order.
struct ResidualStream {
    const float* data;
    int slots;
};

/// qkv_stage.cuh
template <class Norm>
struct QkvArgs {
    ResidualStream x;
    typename Norm::template Weights<CudaStore> norm;
    const unsigned char* tiles;
    const float* bias;  ///< [width], stacked as the matrices are; null without biases
    float* out;         ///< [slots][rows][width]
    int used_rows;
    int* overflows;
};

/// output_stage.cuh
struct OutputArgs {
    ResidualStream x;
    const unsigned short* mixed;  ///< operand [planes][rows][operand_stride(heads * head_dim)]
    const unsigned char* tiles;
    const float* bias;    ///< [hidden] or null
    const float* router;  ///< of the residual that comes next, [hidden][experts], gain folded in; or null
    float* out;           ///< [slots][rows][hidden]; not x
    float* router_sums;   ///< [blocks][rows][experts]
    int used_rows;
};

/// up_stage.cuh
template <class Norm>
struct UpArgs {
    ResidualStream x;
    typename Norm::template Weights<CudaStore> norm;
    const unsigned char* tiles;
    unsigned long long expert_bytes;
    const float *gate_bias, *up_bias;  ///< [experts][width], or null
    unsigned short* h;                 ///< operand [planes][rows][used][operand_stride(width)]
    const float* router_sums;          ///< [blocks][rows][experts]
    int router_blocks;
    const float* router_bias;  ///< [experts] or null
    void* choice;              ///< Choice, written for the next stage
    int used_rows;
    int* overflows;
};

/// down_stage.cuh
struct DownArgs {
    ResidualStream x;
    const unsigned short* h;  ///< operand [planes][rows][used][operand_stride(width)]
    const unsigned char* tiles;
    unsigned long long expert_bytes;
    const float* bias;    ///< [experts][hidden], or null
    const void* choice;   ///< Choice, of the stage before
    const float* router;  ///< of the residual that comes next, [hidden][experts], gain folded in; or null
    float* out;           ///< [slots][rows][hidden]; not x
    float* router_sums;   ///< [blocks][rows][experts]
    int used_rows;
};

/// head_stage.cuh
template <class Norm>
struct HeadArgs {
    ResidualStream x;
    typename Norm::template Weights<CudaStore> norm;
    const unsigned char* tiles;
    const Row* rows;  ///< [used_rows], with their logits
    int used_rows;
    int* overflows;
};

/// How a kernel is launched; a compiled module has a table of them.
struct Launch {
    int blocks, threads, shared_bytes;
    int slots;  ///< partial sums that it leaves
};

/// The experts that a step's rows use (feed_forward.cuh).
template <int rows, int used, int most>
struct Choice {
    int count;               ///< experts listed
    int listed[most];        ///< their indices
    int rank[rows][most];    ///< which of a row's choices a listed expert is; -1: none
    int expert[rows][used];  ///< each row's choices
    float weight[rows][used];
};

/// Bytes of a Choice.
GG_HD constexpr int choice_bytes(int rows, int used, int most) {
    return 4 * (1 + most + rows * most + 2 * rows * used);
}
static_assert(sizeof(Choice<8, 4, 32>) == choice_bytes(8, 4, 32));

}  // namespace gg::cuda
