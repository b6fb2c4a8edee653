// The metadata of a model of random weights: the keys that its family reads its dimensions back from, and a
// vocabulary, made up or copied. Errors: gg::Error invalid_request for a vocabulary that does not fit.
#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "gg/gguf/writer.hpp"
#include "gg/model/synthetic_tensors.hpp"
#include "gg/text/byte_alphabet.hpp"
#include "gg/text/vocabulary.hpp"

namespace gg {

namespace detail {

/// Which layers slide where the file does not say.
inline std::vector<bool> every_other(int layers) {
    std::vector<bool> sliding;
    for (int i = 0; i < layers; ++i) sliding.push_back(i % 2 == 0);
    return sliding;
}

}  // namespace detail

/// Sets the general keys and the family's, of which Family::read_dims reads the dimensions back.
template <class Family>
void set_synthetic_metadata(gguf::Writer& writer, const SyntheticModel& model) {
    const Dims& dims = model.dims;
    const std::string prefix = std::string(Family::architecture) + ".";
    const auto integer = [&](const char* key, double value) {
        writer.set(prefix + key, static_cast<std::uint32_t>(value));
    };
    const auto number = [&](const char* key, double value) {
        writer.set(prefix + key, static_cast<float>(value));
    };
    writer.set("general.architecture", std::string(Family::architecture));
    writer.set("general.name", model.name);
    writer.set("general.quantization_version", std::uint32_t{2});
    writer.set("general.file_type",
               file_type(dims.experts > 0 && model.experts == DType::mxfp4 ? DType::mxfp4 : model.dense));
    integer("block_count", dims.layers);
    integer("context_length", dims.context);
    integer("embedding_length", dims.hidden);
    integer("feed_forward_length", dims.experts > 0 ? dims.expert_feed_forward : dims.feed_forward);
    integer("attention.head_count", dims.heads);
    if (dims.kv_heads != dims.heads) integer("attention.head_count_kv", dims.kv_heads);
    number(std::is_same_v<typename Family::FinalNorm, LayerNorm> ? "attention.layer_norm_epsilon"
                                                                 : "attention.layer_norm_rms_epsilon",
           dims.norm_epsilon);
    if (dims.heads * dims.head_dim != dims.hidden) {
        integer("attention.key_length", dims.head_dim);
        integer("attention.value_length", dims.head_dim);
    } else if (dims.rope_base > 0) {
        integer("rope.dimension_count", dims.head_dim);
    }
    if (dims.rope_base > 0) number("rope.freq_base", dims.rope_base);
    if (dims.experts > 0) {
        integer("expert_count", dims.experts);
        integer("expert_used_count", dims.experts_used);
        integer("expert_feed_forward_length", dims.expert_feed_forward);
    }
    if (dims.window > 0) {
        integer("attention.sliding_window", dims.window);
        if (dims.sliding != detail::every_other(dims.layers))
            writer.set(prefix + "attention.sliding_window_pattern", dims.sliding);
    }
    if (dims.yarn_original_context > 0) {
        writer.set(prefix + "rope.scaling.type", std::string("yarn"));
        number("rope.scaling.factor", dims.yarn_factor);
        integer("rope.scaling.original_context_length", dims.yarn_original_context);
        if (dims.yarn_beta_fast != Dims{}.yarn_beta_fast)
            number("rope.scaling.yarn_beta_fast", dims.yarn_beta_fast);
        if (dims.yarn_beta_slow != Dims{}.yarn_beta_slow)
            number("rope.scaling.yarn_beta_slow", dims.yarn_beta_slow);
    }
}

/// Sets a vocabulary of the model's size without merges: the 256 bytes, then tokens that are never used. No
/// token ends a text.
inline void set_synthetic_vocabulary(gguf::Writer& writer, const SyntheticModel& model) {
    const auto size = static_cast<std::size_t>(model.dims.vocabulary);
    if (model.dims.vocabulary < 256)
        throw Error(ErrorCode::invalid_request, {.file = {},
                                                 .field = "vocabulary",
                                                 .expected = "at least the 256 bytes",
                                                 .found = std::to_string(model.dims.vocabulary),
                                                 .next_step = {}});
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte)
        tokens.push_back(text::written_in_byte_alphabet(std::string(1, static_cast<char>(byte))));
    while (tokens.size() < size) tokens.push_back("<extra_" + std::to_string(tokens.size()) + ">");
    std::vector<std::int32_t> kinds(size, static_cast<std::int32_t>(text::TokenKind::unused));
    std::fill_n(kinds.begin(), 256, static_cast<std::int32_t>(text::TokenKind::normal));
    writer.set("tokenizer.ggml.model", std::string("gpt2"));
    writer.set("tokenizer.ggml.pre", model.pre_tokenizer);
    writer.set("tokenizer.ggml.tokens", tokens);
    writer.set("tokenizer.ggml.token_type", kinds);
    writer.set("tokenizer.ggml.merges", std::vector<std::string>{});
}

/// Copies the tokenizer of another file, which may have fewer tokens than the model but no more.
inline void copy_vocabulary(gguf::Writer& writer, const gguf::File& from, const SyntheticModel& model) {
    const int size = text::Vocabulary::from_gguf(from).size();
    if (size > model.dims.vocabulary)
        throw Error(ErrorCode::invalid_request,
                    {.file = from.name(),
                     .field = "key tokenizer.ggml.tokens",
                     .expected = "at most " + std::to_string(model.dims.vocabulary) + " tokens",
                     .found = std::to_string(size),
                     .next_step = {}});
    for (const gguf::Entry& entry : from.metadata())
        if (entry.key.starts_with("tokenizer.")) writer.set(entry.key, entry.value);
}

}  // namespace gg
