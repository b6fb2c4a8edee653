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

/// What the size of a key-value cache depends on beside the model; every backend has one.
struct CacheShape {
    int chunk = 0;     ///< tokens computed together; a sliding layer's cache holds them beside the window
    int rounding = 0;  ///< the positions of a layer are a multiple of it
    int element_bytes = 0;    ///< of a key's or a value's element
    int key_rounding = 1;     ///< a key takes head_dim elements, rounded up to a multiple of it
    int value_rounding = 16;  ///< a value likewise
};

/// Positions that the key-value cache of a layer holds for a session of `context` tokens: all, or the window
/// and one chunk; rounded up.
inline int cache_positions(const Dims& dims, int layer, int context, const CacheShape& shape) {
    const int sliding = dims.window - 1 + shape.chunk;
    const int positions = dims.slides(layer) && sliding < context ? sliding : context;
    return (positions + shape.rounding - 1) / shape.rounding * shape.rounding;
}

/// Positions [first, end) of a layer's cache.
struct CachePositions {
    int first = 0, end = 0;
};

/// What a layer reads of the cache to append token number `tokens`: all before it, or the window less itself.
inline CachePositions needed_positions(const Dims& dims, int layer, int tokens) {
    return {dims.slides(layer) ? std::max(0, tokens - (dims.window - 1)) : 0, tokens};
}

/// Bytes of the key-value cache of one session.
inline std::uint64_t cache_bytes(const Dims& dims, int context, const CacheShape& shape) {
    const auto padded = [&](int rounding) {
        return static_cast<std::uint64_t>((dims.head_dim + rounding - 1) / rounding * rounding);
    };
    const std::uint64_t width = padded(shape.key_rounding) + padded(shape.value_rounding);
    std::uint64_t elements = 0;
    for (int layer = 0; layer < dims.layers; ++layer)
        elements +=
            static_cast<std::uint64_t>(cache_positions(dims, layer, context, shape)) * dims.kv_heads * width;
    return elements * static_cast<std::uint64_t>(shape.element_bytes);
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
