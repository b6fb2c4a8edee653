// gpt-oss's layer (OpenAI, 2025): RMSNorm, YaRN, grouped-query attention with sinks, every other layer
// sliding, a mixture of experts with the clamped SwiGLU. Device code includes it as well.
#pragma once

#include "gg/block/attention.hpp"
#include "gg/block/embedding.hpp"
#include "gg/block/mixture_of_experts.hpp"
#include "gg/block/rms_norm.hpp"
#include "gg/block/rope.hpp"
#include "gg/block/swiglu.hpp"
#include "gg/layer/layer.hpp"

namespace gg {

using GptOssLayer =
    Layer<RmsNorm, Attention<YarnRope, Sinks, SlidingWindow, Bias>, MixtureOfExperts<ClampedSwiglu, Bias>>;

/// What the model consists of.
struct GptOssComposition {
    using Embedding = TokenEmbedding;
    using Layer = GptOssLayer;
    using FinalNorm = RmsNorm;
};

}  // namespace gg
