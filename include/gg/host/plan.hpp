// What a session on the host allocates, known before it is made: sizes of scratch space and the constants
// that they follow from. The loops that use them are elsewhere in host/.
#pragma once

#include "gg/model/info.hpp"

namespace gg::host {

/// Floats from row to row of activations `width` wide; the padding is zeros.
constexpr std::size_t row_stride(int width) {
    return (static_cast<std::size_t>(width) + 31) / 32 * 32;
}

/// Prompts are computed 256 tokens at a time; keys and values are float32, in tiles of 16 positions.
inline constexpr CacheShape cache_shape{.chunk = 256, .rounding = 16, .element_bytes = sizeof(float)};
/// Rows whose logits are computed together when a prompt is scored.
inline constexpr int scored_rows = 16;
/// Weight rows that a thread decodes at a time.
inline constexpr int panel_rows = 32;
/// Query heads that share a pass over their keys.
inline constexpr int attention_heads = 4;

/// Floats of scratch space for one head's scores; constant in a layer, so that scratch space does not grow.
inline std::size_t score_stride(const Dims& dims, int layer, int context) {
    const int keys = dims.slides(layer) ? std::min(dims.window, context) : context;
    return (static_cast<std::size_t>(keys) + 15) / 16 * 16 + 32;
}

/// Floats of scratch space that a session on the host needs at most: activations of one chunk, one layer's
/// branch, a panel of weights and scores a thread.
inline std::uint64_t scratch_floats(const Dims& d, int context, int threads) {
    const std::uint64_t rows = static_cast<std::uint64_t>(std::min(context, cache_shape.chunk));
    const auto team = static_cast<std::uint64_t>(threads);
    const std::uint64_t hidden = row_stride(d.hidden), mixed = row_stride(d.heads * d.head_dim);
    std::size_t scores = 0;
    for (int layer = 0; layer < d.layers; ++layer) scores = std::max(scores, score_stride(d, layer, context));
    const std::uint64_t attention =
        rows * 2 * (mixed + row_stride(d.kv_heads * d.head_dim)) + team * attention_heads * scores;
    const std::uint64_t dense = rows * 2 * row_stride(d.feed_forward);
    const std::uint64_t pairs = rows * static_cast<std::uint64_t>(d.experts_used);
    const std::uint64_t experts =
        pairs * (3 + 2 * hidden + 2 * row_stride(d.expert_feed_forward)) + (rows + 1) * row_stride(d.experts);
    const std::uint64_t head = scored_rows * (row_stride(d.vocabulary) + hidden);
    const std::uint64_t widest = std::max<std::uint64_t>(
        {hidden, mixed, row_stride(d.feed_forward), row_stride(d.expert_feed_forward)});
    return 4 * rows * hidden + std::max({attention, dense, experts, head}) + team * panel_rows * widest +
           1024;
}

/// Bytes that a session of `context` tokens takes on the host with `threads` threads: the float32 cache,
/// scratch space, cos and sin of a chunk's positions, the logits, the tokens, what drawing the next one takes
/// (at most 10 floats for each of the vocabulary), and what buffers are rounded up to.
inline std::uint64_t session_bytes(const ModelInfo& info, int context, int threads = 1) {
    const Dims& d = info.dims;
    const std::uint64_t rotary = static_cast<std::uint64_t>(std::min(context, cache_shape.chunk)) *
                                 static_cast<std::uint64_t>(d.head_dim);
    const std::uint64_t sampling =
        static_cast<std::uint64_t>(context) + 10 * static_cast<std::uint64_t>(d.vocabulary);
    const std::uint64_t rounding = 8192 * (static_cast<std::uint64_t>(d.layers) + 4);
    return cache_bytes(d, context, cache_shape) +
           4 * (scratch_floats(d, context, threads) + rotary + row_stride(d.vocabulary) + sampling) +
           rounding;
}

}  // namespace gg::host
