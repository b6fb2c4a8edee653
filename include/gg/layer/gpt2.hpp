// GPT-2's layer (Radford et al., 2019): LayerNorm, multi-head attention from a fused q, k, v product, GELU in
// its tanh form, biases everywhere. Device code includes it as well.
#pragma once

#include "gg/block/attention.hpp"
#include "gg/block/embedding.hpp"
#include "gg/block/gelu.hpp"
#include "gg/block/layer_norm.hpp"
#include "gg/block/mlp.hpp"
#include "gg/layer/layer.hpp"

namespace gg {

using Gpt2Layer = Layer<LayerNorm, Attention<FusedQkv, Bias>, Mlp<GeluTanh, Bias>>;

/// What the model consists of.
struct Gpt2Composition {
    using Embedding = PositionedEmbedding;
    using Layer = Gpt2Layer;
    using FinalNorm = LayerNorm;
};

}  // namespace gg
