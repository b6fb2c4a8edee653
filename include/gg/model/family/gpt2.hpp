// GPT-2 (Radford et al., 2019): LayerNorm, learned positions, multi-head attention from a fused q, k, v
// product, GELU in its tanh form, biases everywhere, head usually tied to the embedding.
#pragma once

#include "gg/layer/gpt2.hpp"
#include "gg/model/read_dims.hpp"

namespace gg {

struct Gpt2 : Gpt2Composition {
    static constexpr const char* architecture = "gpt2";
    static constexpr const char* layer_norms[] = {"attn_norm", "ffn_norm"};

    /// The composition as a compiler at run time finds it.
    static constexpr const char* composition_header = "gg/layer/gpt2.hpp";
    static constexpr const char* composition_type = "gg::Gpt2Composition";

    /// Dimensions from the metadata.
    static Dims read_dims(const gguf::File& file) {
        const Hyperparameters h(file, architecture);
        Dims dims = read_common_dims(h, "attention.layer_norm_epsilon");
        dims.feed_forward = h.positive("feed_forward_length");
        return dims;
    }
};

}  // namespace gg
