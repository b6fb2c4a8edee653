// The shapes of published models, for random weights in them.
#pragma once

#include <string>
#include <string_view>

#include "gg/model/synthetic_metadata.hpp"

namespace gg {

/// The names that with_synthetic_preset() knows.
inline constexpr const char* synthetic_presets[] = {"gpt-oss-20b", "gpt-oss-120b", "gpt2", "gpt2-xl",
                                                    "smollm2-135m"};

namespace detail {

inline SyntheticModel gpt_oss_preset(int layers, int experts) {
    SyntheticModel model;
    Dims& dims = model.dims;
    dims.layers = layers;
    dims.hidden = 2880;
    dims.heads = 64;
    dims.kv_heads = 8;
    dims.head_dim = 64;
    dims.experts = experts;
    dims.experts_used = 4;
    dims.expert_feed_forward = 2880;
    dims.vocabulary = 201088;
    dims.context = 131072;
    dims.window = 128;
    dims.sliding = every_other(layers);
    dims.norm_epsilon = 1e-5F;
    dims.rope_base = 150000;
    dims.yarn_factor = 32;
    dims.yarn_original_context = 4096;
    model.pre_tokenizer = "gpt-4o";
    return model;
}

inline SyntheticModel gpt2_preset(int layers, int hidden) {
    SyntheticModel model;
    Dims& dims = model.dims;
    dims.layers = layers;
    dims.hidden = hidden;
    dims.heads = dims.kv_heads = hidden / 64;
    dims.head_dim = 64;
    dims.feed_forward = 4 * hidden;
    dims.vocabulary = 50257;
    dims.context = 1024;
    dims.norm_epsilon = 1e-5F;
    model.tied = true;
    model.dense = DType::f16;
    return model;
}

inline SyntheticModel smollm2_preset() {
    SyntheticModel model;
    Dims& dims = model.dims;
    dims.layers = 30;
    dims.hidden = 576;
    dims.heads = 9;
    dims.kv_heads = 3;
    dims.head_dim = 64;
    dims.feed_forward = 1536;
    dims.vocabulary = 49152;
    dims.context = 8192;
    dims.norm_epsilon = 1e-5F;
    dims.rope_base = 100000;
    model.tied = true;
    model.pre_tokenizer = "smollm";
    return model;
}

}  // namespace detail

/// Calls `f(family, model)` with the family and the shapes of a published model. Refuses other names.
template <class F>
decltype(auto) with_synthetic_preset(std::string_view name, F&& f) {
    const auto call = [&](auto family, SyntheticModel model) -> decltype(auto) {
        model.name = "synthetic " + std::string(name);
        return f(family, model);
    };
    if (name == "gpt-oss-20b") return call(GptOss{}, detail::gpt_oss_preset(24, 32));
    if (name == "gpt-oss-120b") return call(GptOss{}, detail::gpt_oss_preset(36, 128));
    if (name == "gpt2") return call(Gpt2{}, detail::gpt2_preset(12, 768));
    if (name == "gpt2-xl") return call(Gpt2{}, detail::gpt2_preset(48, 1600));
    if (name == "smollm2-135m") return call(Llama{}, detail::smollm2_preset());
    throw Error(ErrorCode::invalid_request, {.file = {},
                                             .field = "preset",
                                             .expected = "one of the names in synthetic_presets",
                                             .found = std::string(name),
                                             .next_step = {}});
}

}  // namespace gg
