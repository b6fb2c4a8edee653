// Where each layer's keys and values lie in a session's cache, from dimensions and composition.
#pragma once

#include <cstdint>
#include <vector>

#include "gg/cuda/kernel_specs.hpp"
#include "gg/cuda/rows.hpp"
#include "gg/cuda/source.hpp"

namespace gg::cuda {

/// The place of every layer. A layer has at most one attention block on a GPU.
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
        places.push_back(next);
        ++(next.window > 0 ? next.sliding_before : next.full_before);
    }
    return places;
}

/// Positions of a layer without a window in a session of `context` tokens.
inline int cache_capacity(int context) {
    return (context + 63) / 64 * 64;
}

/// Bytes of a session's cache.
template <class Family>
std::uint64_t cache_bytes_on_device(const Dims& dims, int context) {
    const int capacity = cache_capacity(context);
    const int sliding = sliding_capacity(dims.window, cuda_prefill_chunk, capacity);
    std::uint64_t positions = 0;
    for (const LayerPlace& place : layer_places<Family>(dims))
        positions += static_cast<std::uint64_t>(place.window > 0 ? sliding : capacity);
    return positions * static_cast<std::uint64_t>(dims.kv_heads) *
           static_cast<std::uint64_t>(head_stride(dims.head_dim)) * 4;
}

}  // namespace gg::cuda
