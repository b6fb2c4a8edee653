// The layer of Llama-shaped models (Touvron et al., 2023): RMSNorm, rotary embedding on adjacent pairs,
// grouped-query attention, SwiGLU, no biases. Device code includes it as well.
#pragma once

#include "gg/block/attention.hpp"
#include "gg/block/embedding.hpp"
#include "gg/block/mlp.hpp"
#include "gg/block/rms_norm.hpp"
#include "gg/block/rope.hpp"
#include "gg/block/swiglu.hpp"
#include "gg/layer/layer.hpp"

namespace gg {

using LlamaLayer = Layer<RmsNorm, Attention<Rope>, Mlp<Swiglu>>;

/// What the model consists of.
struct LlamaComposition {
    using Embedding = TokenEmbedding;
    using Layer = LlamaLayer;
    using FinalNorm = RmsNorm;
};

}  // namespace gg
