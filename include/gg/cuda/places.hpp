// Where each layer's keys and values lie in a session's cache, from dimensions and composition.
#pragma once

#include <string>
#include <vector>

#include "gg/cuda/kernel_specs.hpp"
#include "gg/cuda/rows.hpp"
#include "gg/cuda/source.hpp"

namespace gg::cuda {

/// The place of every layer. A layer has at most one attention block on a GPU. Throws internal if the
/// composition and the dimensions disagree about which layers slide.
template <class Family>
std::vector<LayerPlace> layer_places(const Dims& dims) {
    std::vector<LayerPlace> places;
    LayerPlace next{0, 0, 0};
    for (int layer = 0; layer < dims.layers; ++layer) {
        next.window = 0;
        for_each_branch<typename Family::Layer>([&](auto r, auto b) {
            using Branch = BranchOf<typename Family::Layer, decltype(r)::value, decltype(b)::value>;
            if constexpr (is_attention<Branch>) next.window = Branch::window(dims, layer);
        });
        if (dims.slides(layer) != (next.window > 0))
            throw Error(ErrorCode::internal, "layer " + std::to_string(layer) +
                                                 " has a sliding cache but attention without a window");
        places.push_back(next);
        ++(next.window > 0 ? next.sliding_before : next.full_before);
    }
    return places;
}

/// FP16, heads at multiples of 16 bytes (head_stride), positions in tiles of 64 keys.
inline constexpr CacheShape cuda_cache_shape{
    .chunk = cuda_prefill_chunk, .rounding = 64, .element_bytes = 2, .key_rounding = 8, .value_rounding = 8};

/// Positions of a layer without a window in a session of `context` tokens.
inline int cache_capacity(int context) {
    return (context + 63) / 64 * 64;
}

/// One layer's part of a session's cache.
inline LayerCache layer_cache(unsigned char* cache, const Dims& dims, int context, const LayerPlace& place) {
    return layer_cache(cache, dims.kv_heads, dims.head_dim, dims.window, cuda_prefill_chunk,
                       cache_capacity(context), place);
}

}  // namespace gg::cuda
