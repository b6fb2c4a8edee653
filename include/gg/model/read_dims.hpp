// The hyper-parameters that every family has, read and checked in one place.
#pragma once

#include "gg/model/dims.hpp"
#include "gg/model/hyperparameters.hpp"

namespace gg {

/// Layers, widths, heads, context and vocabulary. `epsilon_key` names the norms' epsilon. The vocabulary is
/// the number of rows of token_embd.weight.
inline Dims read_common_dims(const Hyperparameters& h, std::string_view epsilon_key) {
    Dims dims;
    dims.layers = h.positive("block_count", 4096);
    dims.hidden = h.positive("embedding_length", 1 << 20);
    dims.context = h.positive("context_length");
    dims.heads = h.positive("attention.head_count", 1 << 12);
    dims.kv_heads = h.positive_or("attention.head_count_kv", dims.heads, 1 << 12);
    dims.norm_epsilon = static_cast<float>(h.number(epsilon_key, 1e-20, 1.0));
    if (dims.heads % dims.kv_heads != 0)
        h.refuse_key("attention.head_count_kv", "a divisor of head_count " + std::to_string(dims.heads),
                     std::to_string(dims.kv_heads));
    if (h.has("attention.key_length")) {
        dims.head_dim = h.positive("attention.key_length", 1 << 12);
    } else {
        if (dims.hidden % dims.heads != 0)
            h.refuse_key("attention.head_count",
                         "a divisor of embedding_length " + std::to_string(dims.hidden),
                         std::to_string(dims.heads));
        dims.head_dim = dims.hidden / dims.heads;
    }
    const int value_length = h.positive_or("attention.value_length", dims.head_dim, 1 << 12);
    if (value_length != dims.head_dim)
        h.refuse_key("attention.value_length", "the key length " + std::to_string(dims.head_dim),
                     std::to_string(value_length));
    const TensorView& embedding = h.file().require_tensor("token_embd.weight");
    if (embedding.dimensions != 2 || embedding.shape[1] > (1u << 30))
        refuse({.file = h.file().name(),
                .field = "tensor token_embd.weight",
                .expected = "shape [" + std::to_string(dims.hidden) + ", vocabulary]",
                .found = shape_text(embedding)});
    dims.vocabulary = static_cast<int>(embedding.shape[1]);
    return dims;
}

/// Checks what the rotary embedding needs and reads its base.
inline void read_rope_dims(const Hyperparameters& h, Dims& dims, double default_base) {
    dims.rope_base = h.number_or("rope.freq_base", default_base, 2.0, 1e12);
    if (dims.head_dim % 2 != 0)
        h.refuse_key(h.has("attention.key_length") ? "attention.key_length" : "attention.head_count",
                     "an even head width for the rotary embedding", std::to_string(dims.head_dim));
    const int rotated = h.positive_or("rope.dimension_count", dims.head_dim);
    if (rotated != dims.head_dim)
        h.refuse_key("rope.dimension_count", "the whole head, " + std::to_string(dims.head_dim),
                     std::to_string(rotated), "Heads that are turned in part are not supported.");
}

}  // namespace gg
