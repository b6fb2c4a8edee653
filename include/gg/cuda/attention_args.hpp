// What the three kernels of attention are given, and their launch plans: constant expressions over values, so
// that kernels use them as constants and the host computes the same launch without the kernels' types.
//
//   AppendKeys        many rows of one sequence: policies, rounding to FP16, keys and values into the cache
//   PrefillAttention  the same rows' attention from the cache
//   DecodeAttention   1 to 8 rows of any sequences: both in one kernel, from partial sums
//
// Numbers: queries, keys and values are rounded to FP16 once, before the factor 1/sqrt(head_dim), which the
// FP32 scores get together with log2(e).
#pragma once

#include "gg/cuda/plan.hpp"
#include "gg/cuda/rows.hpp"

namespace gg::cuda {

/// `rows` consecutive tokens of one sequence, from position `start` on. Weights are the attention block's.
template <class Weights>
struct AppendKeysArgs {
    Weights weights;
    const float* product;     ///< q, k, v with their biases: [rows][qkv_columns.width]
    const float* cosines;     ///< [rows][head_dim / 2]; null without a rotary policy
    const float* sines;       ///< likewise
    unsigned short* queries;  ///< out: FP16 [rows][heads][head_stride], not yet times 1/sqrt(head_dim)
    unsigned char* cache;     ///< of the sequence
    int capacity;             ///< positions of a layer that does not slide
    LayerPlace place;
    int start;
    int rows;
    int* overflows;  ///< counts pairs of numbers beyond FP16
};

/// The same rows, after AppendKeys. In a layer with a window rows is at most prefill_chunk, as many as its
/// ring holds beside the window.
template <class Weights>
struct PrefillAttentionArgs {
    Weights weights;
    const unsigned short* queries;
    const unsigned char* cache;
    int capacity;
    LayerPlace place;
    int start;
    int rows;
    unsigned short* out;  ///< operand [planes][rows][operand_stride(heads * head_dim)]
    int* overflows;
};

/// Up to `rows` (a template argument of the kernel) rows of any sequences.
template <class Weights>
struct DecodeAttentionArgs {
    Weights weights;
    const float* product;  ///< partial sums with the biases in one of them: [slots][rows][qkv_columns.width]
    const float* cosines;  ///< [rows][head_dim / 2]; null without a rotary policy
    const float* sines;    ///< likewise
    const Row* row_list;   ///< [used_rows]
    LayerPlace place;
    int used_rows;
    unsigned short* out;  ///< operand [planes][rows][operand_stride(heads * head_dim)]
    float* workspace;     ///< decode_workspace_floats
    int* counters;        ///< [rows][kv_heads], 0 before the first launch and after every launch
    int* overflows;
};

/// Heads of q, k and v that a block of AppendKeys treats.
inline constexpr int append_heads = 32;

GG_HD constexpr int append_blocks_of_row(int heads, int kv_heads) {
    return detail::ceil_div(heads + 2 * kv_heads, append_heads);
}
GG_HD constexpr int append_blocks(int heads, int kv_heads, int rows) {
    return rows * append_blocks_of_row(heads, kv_heads);
}

/// Rows of queries that a block of PrefillAttention treats: narrow heads leave registers for more.
GG_HD constexpr int prefill_query_rows(int head_dim) {
    return head_dim <= 64 ? 128 : 64;
}
GG_HD constexpr int prefill_blocks(int heads, int head_dim, int rows) {
    return heads * detail::ceil_div(rows, prefill_query_rows(head_dim));
}

/// How a block of WarpgroupPrefillAttention is divided: `warpgroups` that treat 64 heads of rows each, and
/// one that copies tiles of `keys` keys, `stages` of them held.
struct WarpgroupPrefillShape {
    int warpgroups, keys, stages;
    bool queries_in_registers;  ///< or in shared memory
    bool in_turn;               ///< warpgroups start their products one after the other
    int residency;              ///< blocks that a multiprocessor holds

    GG_HD constexpr int threads() const { return 128 * (warpgroups + 1); }
    /// A thread's registers when the kernel starts, and once those who copy have given up what they do not
    /// need.
    GG_HD constexpr int registers() const { return 65536 / (threads() * residency) / 8 * 8; }
    GG_HD constexpr int product_registers() const {
        const int most = (registers() * (warpgroups + 1) - 32) / warpgroups / 8 * 8;
        return most < 240 ? most : 240;
    }
    GG_HD constexpr int copy_registers() const {
        const int rest = registers() * (warpgroups + 1) - product_registers() * warpgroups;
        return rest < registers() ? rest : registers();
    }
    GG_HD constexpr int query_rows() const { return 64 * warpgroups; }
};
/// Heads of 64 or 128 elements; {} for others.
GG_HD constexpr WarpgroupPrefillShape warpgroup_prefill_shape(int head_dim) {
    if (head_dim == 64) return {3, 128, 4, false, true, 1};
    if (head_dim == 128) return {2, 128, 3, false, true, 1};
    return {};
}
GG_HD constexpr bool warpgroup_prefill_supports(int head_dim) {
    return warpgroup_prefill_shape(head_dim).warpgroups > 0;
}
GG_HD constexpr int warpgroup_prefill_blocks(int heads, int kv_heads, int rows,
                                             const WarpgroupPrefillShape& shape) {
    return kv_heads * detail::ceil_div(rows * (heads / kv_heads), shape.query_rows());
}
GG_HD constexpr int warpgroup_prefill_blocks(int heads, int kv_heads, int head_dim, int rows) {
    return warpgroup_prefill_blocks(heads, kv_heads, rows, warpgroup_prefill_shape(head_dim));
}

// Decoding: keys are counted in units of 16 positions, aligned to multiples of 16, so that what is added to
// what depends on the row's position alone, not on how many rows a step has.

inline constexpr int unit_keys = 16;
/// Units below which a split is not worth the merging: about 2 microseconds of one multiprocessor.
inline constexpr int least_split_units = 32;

/// Into how many parts the keys of a row and head are divided at most: so that a step of one row has a block
/// a multiprocessor beside the next stage's, and others, whose stages do not run side by side, have two.
GG_HD constexpr int decode_splits(int multiprocessors, int kv_heads, int rows) {
    const int splits = (rows == 1 ? 1 : 2) * multiprocessors / (kv_heads * rows);
    return splits < 1 ? 1 : splits;
}
GG_HD constexpr int decode_blocks(int kv_heads, int used_rows, int splits) {
    return kv_heads * used_rows * splits;
}
/// Per row, head and split: the weighted values, the largest score, the sum.
GG_HD constexpr unsigned long long decode_workspace_floats(int heads, int head_dim, int rows, int splits) {
    return static_cast<unsigned long long>(rows) * heads * splits * ((head_dim + 1) / 2 * 2 + 2);
}

/// The units that a row's split reads.
struct KeyUnits {
    int begin, end;  ///< positions 16 begin to 16 end - 1
    int used;        ///< splits that have any
};

/// What split `split` of the row at `position` reads, with a window of `window` keys (0: all). Of a split
/// that is not used: nothing.
GG_HD constexpr KeyUnits key_units(int position, int window, int split, int splits) {
    const int first = window > 0 && position >= window ? (position - window + 1) / unit_keys : 0;
    const int units = position / unit_keys - first + 1;
    const int useful = detail::ceil_div(units, least_split_units);
    const int used = useful < splits ? useful : splits;
    if (split >= used) return {0, 0, used};
    return {first + share_begin(units, split, used), first + share_begin(units, split + 1, used), used};
}

}  // namespace gg::cuda
