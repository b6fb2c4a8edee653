// A GGUF file of a random Llama-shaped model with a byte-level tokenizer, made anew for each test.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gg/gguf/writer.hpp"
#include "gg/text/byte_alphabet.hpp"

namespace runner_test {

struct TinyModel {
    int context = 512;
    int padding = 3;  ///< rows of the embedding beyond the vocabulary
    bool specials =
        true;  ///< ids 258 <|endoftext|>, 259 <|im_start|>, 260 <|im_end|>; else a text never ends
    bool adds_bos = false;  ///< bos is <|endoftext|>
    bool tensors = true;    ///< false: a vocabulary only
    std::string architecture = "llama";
    std::string chat_template = {};

    int tokens() const { return specials ? 261 : 258; }
    int rows() const { return tokens() + padding; }

    void write(const std::filesystem::path& path) const {
        gg::gguf::Writer writer;
        writer.set("general.architecture", architecture);
        writer.set("general.name", std::string("tiny"));
        write_vocabulary(writer);
        if (tensors) write_weights(writer);
        writer.write(path);
    }

  private:
    static constexpr std::uint32_t hidden = 32, head = 16, heads = 2, feed_forward = 64;

    // Ids 0 to 255 are the bytes, 256 "he", 257 "hey".
    void write_vocabulary(gg::gguf::Writer& writer) const {
        std::vector<std::string> texts;
        for (int byte = 0; byte < 256; ++byte)
            texts.push_back(gg::text::written_in_byte_alphabet(std::string(1, static_cast<char>(byte))));
        texts.insert(texts.end(), {"he", "hey"});
        if (specials) texts.insert(texts.end(), {"<|endoftext|>", "<|im_start|>", "<|im_end|>"});
        std::vector<std::int32_t> types(texts.size(), 1);
        for (std::size_t id = 258; id < types.size(); ++id) types[id] = 3;
        writer.set("tokenizer.ggml.model", std::string("gpt2"));
        writer.set("tokenizer.ggml.pre", std::string("gpt-2"));
        writer.set("tokenizer.ggml.tokens", texts);
        writer.set("tokenizer.ggml.token_type", types);
        writer.set("tokenizer.ggml.merges", std::vector<std::string>{"h e", "he y"});
        if (specials) {
            writer.set("tokenizer.ggml.bos_token_id", std::uint32_t{258});
            writer.set("tokenizer.ggml.eos_token_id", std::uint32_t{258});
            writer.set("tokenizer.ggml.add_bos_token", adds_bos);
        }
        if (!chat_template.empty()) writer.set("tokenizer.chat_template", chat_template);
    }

    void write_weights(gg::gguf::Writer& writer) const {
        const auto set = [&](const std::string& key, std::uint32_t value) {
            writer.set("llama." + key, value);
        };
        set("block_count", 1);
        set("context_length", static_cast<std::uint32_t>(context));
        set("embedding_length", hidden);
        set("feed_forward_length", feed_forward);
        set("attention.head_count", heads);
        set("attention.head_count_kv", 1);
        writer.set("llama.attention.layer_norm_rms_epsilon", 1e-5F);
        std::mt19937 random(1);
        const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape, float scale) {
            std::vector<float> values(shape[0] * (shape.size() > 1 ? shape[1] : 1));
            // Of the generator's own bits, as distributions differ between standard libraries.
            for (float& value : values) value = scale * (static_cast<float>(random() >> 8) * 0x1p-23F - 1);
            if (shape.size() == 1)
                for (float& value : values) value += 1;
            std::vector<std::byte> bytes(values.size() * sizeof(float));
            std::memcpy(bytes.data(), values.data(), bytes.size());
            writer.add_tensor(name, gg::DType::f32, shape, std::move(bytes));
        };
        const auto vocabulary = static_cast<std::uint64_t>(rows());
        add("token_embd.weight", {hidden, vocabulary}, 1);
        add("output_norm.weight", {hidden}, 0.1F);
        add("output.weight", {hidden, vocabulary}, 0.7F);
        add("blk.0.attn_norm.weight", {hidden}, 0.1F);
        add("blk.0.attn_q.weight", {hidden, heads * head}, 0.5F);
        add("blk.0.attn_k.weight", {hidden, head}, 0.5F);
        add("blk.0.attn_v.weight", {hidden, head}, 0.5F);
        add("blk.0.attn_output.weight", {heads * head, hidden}, 0.5F);
        add("blk.0.ffn_norm.weight", {hidden}, 0.1F);
        add("blk.0.ffn_gate.weight", {hidden, feed_forward}, 0.5F);
        add("blk.0.ffn_up.weight", {hidden, feed_forward}, 0.5F);
        add("blk.0.ffn_down.weight", {feed_forward, hidden}, 0.5F);
    }
};

}  // namespace runner_test
