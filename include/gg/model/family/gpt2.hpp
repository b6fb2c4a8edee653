// GPT-2 (Radford et al., 2019): LayerNorm, learned positions, multi-head attention from a fused q, k, v
// product, GELU in its tanh form, biases everywhere, head usually tied to the embedding.
#pragma once

#include "gg/block/attention.hpp"
#include "gg/block/embedding.hpp"
#include "gg/block/gelu.hpp"
#include "gg/block/layer_norm.hpp"
#include "gg/block/mlp.hpp"
#include "gg/layer/layer.hpp"
#include "gg/model/read_dims.hpp"

namespace gg {

using Gpt2Layer = Layer<LayerNorm, Attention<FusedQkv, Bias>, Mlp<GeluTanh, Bias>>;

struct Gpt2 {
    static constexpr const char* architecture = "gpt2";
    static constexpr const char* layer_norms[] = {"attn_norm", "ffn_norm"};

    using Embedding = PositionedEmbedding;
    using Layer = Gpt2Layer;
    using FinalNorm = LayerNorm;

    /// Dimensions from the metadata.
    static Dims read_dims(const gguf::File& file) {
        const Hyperparameters h(file, architecture);
        Dims dims = read_common_dims(h, "attention.layer_norm_epsilon");
        dims.feed_forward = h.positive("feed_forward_length");
        return dims;
    }
};

}  // namespace gg
