// Where the rows of a decoding step stand, and where keys and values lie. Rows are in device memory, so that
// one graph serves every token: the kernel that draws an id writes the next token and position.
//
// A sequence's cache is one allocation, layer after layer: keys [kv_heads][positions][head_stride] in FP16,
// then values in the same shape. Position p lies in slot p mod positions. A layer that slides holds fewer
// positions than the others: the window and the largest chunk that is appended at once.
#pragma once

#include "gg/core/device.hpp"

namespace gg::cuda {

struct SamplerState;

/// One row of a step.
struct Row {
    int token;
    int position;           ///< of the token in its sequence
    int first;              ///< rows first .. this one are consecutive tokens of one sequence
    int capacity;           ///< positions in the cache of a layer that does not slide; a multiple of 64
    unsigned char* cache;   ///< of the sequence
    float* logits;          ///< [vocabulary], out: what follows the token; null: not wanted
    SamplerState* sampler;  ///< draws from them, where a step ends in a draw
};

/// What a layer's attention must know beyond its block: where its cache begins, and how far it sees.
struct LayerPlace {
    int full_before;     ///< layers before this one that do not slide
    int sliding_before;  ///< layers before this one that slide
    int window;          ///< keys that a row sees, itself included; 0: all
};

/// 16-bit floats from one position to the next: heads begin at multiples of 16 bytes.
GG_HD constexpr int head_stride(int head_dim) {
    return (head_dim + 7) / 8 * 8;
}

/// Positions that a sliding layer holds: a row's window while `chunk` rows are appended, at most all.
GG_HD constexpr int sliding_capacity(int window, int chunk, int capacity) {
    const int positions = (window - 1 + chunk + 63) / 64 * 64;
    return positions < capacity ? positions : capacity;
}

/// The cache of one layer and sequence.
struct LayerCache {
    unsigned short* keys;    ///< [kv_heads][positions][head_stride]
    unsigned short* values;  ///< likewise
    int positions;
};

/// `chunk` tokens are appended at once at most.
GG_HD GG_INLINE LayerCache layer_cache(unsigned char* cache, int kv_heads, int head_dim, int window,
                                       int chunk, int capacity, const LayerPlace& place) {
    using Bytes = unsigned long long;
    const Bytes position = Bytes(kv_heads) * head_stride(head_dim) * 2;  // of keys or values
    const int sliding = sliding_capacity(window, chunk, capacity);
    const int positions = place.window > 0 ? sliding : capacity;
    unsigned char* keys =
        cache + 2 * position * (Bytes(place.full_before) * capacity + Bytes(place.sliding_before) * sliding);
    return {reinterpret_cast<unsigned short*>(keys),
            reinterpret_cast<unsigned short*>(keys + position * positions), positions};
}
/// Dims has kv_heads, head_dim, window and prefill_chunk.
template <class Dims>
GG_HD GG_INLINE LayerCache layer_cache(unsigned char* cache, int capacity, const LayerPlace& place) {
    return layer_cache(cache, Dims::kv_heads, Dims::head_dim, Dims::window, Dims::prefill_chunk, capacity,
                       place);
}

/// Columns of a stacked product of q, k and v: each begins at a multiple of 16.
struct QkvColumns {
    int k, v, width;  ///< where k and v begin, and the whole
};
GG_HD constexpr QkvColumns qkv_columns(int heads, int kv_heads, int head_dim) {
    const int q = (heads * head_dim + 15) / 16 * 16, kv = (kv_heads * head_dim + 15) / 16 * 16;
    return {q, q + kv, q + 2 * kv};
}

}  // namespace gg::cuda
