// gpt-oss (OpenAI, 2025): RMSNorm, YaRN, grouped-query attention with sinks, every other layer sliding, and a
// mixture of experts with the clamped SwiGLU; biases on q, k, v, the output, the router and the experts.
//
// Not in any file: the activation's constants (block/swiglu.hpp), and that YaRN's bounds are not truncated.
#pragma once

#include "gg/layer/gpt_oss.hpp"
#include "gg/model/read_dims.hpp"

namespace gg {

struct GptOss : GptOssComposition {
    static constexpr const char* architecture = "gpt-oss";
    static constexpr const char* layer_norms[] = {"attn_norm", "post_attention_norm"};

    /// The composition as a compiler at run time finds it.
    static constexpr const char* composition_header = "gg/layer/gpt_oss.hpp";
    static constexpr const char* composition_type = "gg::GptOssComposition";

    static constexpr bool needs_head = true;  ///< never tied: a file without output.weight is incomplete

    /// Dimensions from the metadata.
    static Dims read_dims(const gguf::File& file) {
        const Hyperparameters h(file, architecture);
        Dims dims = read_common_dims(h, "attention.layer_norm_rms_epsilon");
        dims.experts = h.positive("expert_count", 1 << 14);
        dims.experts_used = h.positive("expert_used_count", dims.experts);
        dims.expert_feed_forward = h.has("expert_feed_forward_length")
                                       ? h.positive("expert_feed_forward_length")
                                       : h.positive("feed_forward_length");
        read_rope_dims(h, dims, 150000.0);
        const std::string scaling = h.text_or("rope.scaling.type", "none");
        if (scaling != "yarn") h.refuse_key("rope.scaling.type", "yarn", scaling);
        dims.yarn_factor = h.number("rope.scaling.factor", 1.0, 1e6);
        dims.yarn_original_context = h.positive("rope.scaling.original_context_length");
        dims.yarn_beta_fast = h.number_or("rope.scaling.yarn_beta_fast", 32.0, 1e-3, 1e6);
        dims.yarn_beta_slow = h.number_or("rope.scaling.yarn_beta_slow", 1.0, 1e-3, 1e6);
        if (dims.yarn_beta_fast <= dims.yarn_beta_slow)
            h.refuse_key("rope.scaling.yarn_beta_fast",
                         "a number above yarn_beta_slow, " + Hyperparameters::text(dims.yarn_beta_slow),
                         Hyperparameters::text(dims.yarn_beta_fast));
        dims.window = h.positive("attention.sliding_window");
        dims.sliding = read_sliding(h, dims.layers);
        return dims;
    }

  private:
    /// Which layers slide: every other, layer 0 first, unless the file has a pattern, which is a flag per
    /// layer or a period of which the last layer does not slide.
    static std::vector<bool> read_sliding(const Hyperparameters& h, int layers) {
        constexpr std::string_view name = "attention.sliding_window_pattern";
        std::vector<bool> sliding(static_cast<std::size_t>(layers));
        const gguf::Value* value = h.file().find(h.key(name));
        if (value && value->is_array()) {
            if (value->count() != sliding.size())
                h.refuse_key(name, "one flag for each of " + std::to_string(layers) + " layers",
                             std::to_string(value->count()));
            if (value->element_type() == gguf::ValueType::boolean)
                return h.file().get<std::vector<bool>>(h.key(name));
            const auto flags = h.file().get<std::vector<std::uint32_t>>(h.key(name));
            for (std::size_t i = 0; i < flags.size(); ++i) sliding[i] = flags[i] != 0;
            return sliding;
        }
        const int period = h.positive_or(name, 2, 1 << 14);
        for (int i = 0; i < layers; ++i) sliding[static_cast<std::size_t>(i)] = i % period != period - 1;
        return sliding;
    }
};

}  // namespace gg
