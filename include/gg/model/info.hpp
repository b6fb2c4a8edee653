// What a model file says of itself, and the memory that running it needs, without touching tensor data.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "gg/model/families.hpp"

namespace gg {

/// A model in numbers.
struct ModelInfo {
    std::string family;  ///< general.architecture
    std::string name;    ///< general.name, or empty
    Dims dims;
    std::uint64_t parameters = 0;    ///< elements of all tensors
    std::uint64_t weight_bytes = 0;  ///< bytes of all tensors
};

/// Tokens that a prompt is cut into for processing; a sliding layer's cache holds them beside the window.
inline constexpr int prefill_chunk = 256;

/// Positions that the key-value cache of a layer holds for a session of `context` tokens: all, or the window
/// and one chunk; a multiple of 16.
inline int cache_positions(const Dims& dims, int layer, int context) {
    const int sliding = dims.window - 1 + prefill_chunk;
    const int positions = dims.slides(layer) && sliding < context ? sliding : context;
    return (positions + 15) / 16 * 16;
}

/// Bytes of the key-value cache of one session; `element_bytes` is 4 on the host, whose cache is float32.
inline std::uint64_t cache_bytes(const Dims& dims, int context, int element_bytes) {
    const std::uint64_t padded = static_cast<std::uint64_t>((dims.head_dim + 15) / 16 * 16);
    std::uint64_t elements = 0;
    for (int layer = 0; layer < dims.layers; ++layer)
        elements += static_cast<std::uint64_t>(cache_positions(dims, layer, context)) * dims.kv_heads *
                    (static_cast<std::uint64_t>(dims.head_dim) + padded);
    return elements * static_cast<std::uint64_t>(element_bytes);
}

/// Reads and checks the hyper-parameters of a file of a known family and counts parameters.
template <class Family>
ModelInfo describe_model(const gguf::File& file) {
    ModelInfo info;
    info.dims = Family::read_dims(file);
    info.family = std::string(file.get<std::string_view>("general.architecture"));
    info.name = std::string(file.get_if<std::string_view>("general.name").value_or(""));
    for (const TensorView& tensor : file.tensors()) {
        info.parameters += tensor.elements();
        info.weight_bytes += tensor.bytes();
    }
    return info;
}

/// The same for a file of any family that gg has; refuses others.
inline ModelInfo describe_model(const gguf::File& file) {
    return with_family(file, [&](auto family) { return describe_model<decltype(family)>(file); });
}

}  // namespace gg
