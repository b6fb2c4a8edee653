// Llama-shaped models (Touvron et al., 2023): RMSNorm, rotary embedding on adjacent pairs (the converter to
// GGUF permutes q and k for it), grouped-query attention, SwiGLU, no biases.
#pragma once

#include "gg/layer/llama.hpp"
#include "gg/model/read_dims.hpp"

namespace gg {

struct Llama : LlamaComposition {
    static constexpr const char* architecture = "llama";
    static constexpr const char* layer_norms[] = {"attn_norm", "ffn_norm"};

    /// The composition as a compiler at run time finds it.
    static constexpr const char* composition_header = "gg/layer/llama.hpp";
    static constexpr const char* composition_type = "gg::LlamaComposition";

    /// Dimensions from the metadata. Refuses variants that the layer type does not compute.
    static Dims read_dims(const gguf::File& file) {
        const Hyperparameters h(file, architecture);
        Dims dims = read_common_dims(h, "attention.layer_norm_rms_epsilon");
        dims.feed_forward = h.positive("feed_forward_length");
        read_rope_dims(h, dims, 10000.0);
        const std::string scaling = h.text_or("rope.scaling.type", "none");
        if (scaling != "none")
            h.refuse_key("rope.scaling.type", "none", scaling,
                         "Scaled positions are supported for gpt-oss only.");
        for (const char* factor : {"rope.scaling.factor", "rope.scale_linear"})  // without a type: linear
            h.number_or(factor, 1.0, 1.0, 1.0);
        if (h.has("expert_count") && h.file().get<std::uint64_t>(h.key("expert_count")) != 0)
            h.refuse_key("expert_count", "0 or no such key", "a mixture of experts",
                         "Mixtures of experts are supported for gpt-oss only.");
        return dims;
    }
};

}  // namespace gg
