// Vocabularies for the tests: a tiny one that a test may spoil, GPT-2's, and those that the environment
// names.
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "gg/gguf/writer.hpp"
#include "gg/text/tokenizer.hpp"

namespace text_test {

using gg::text::Tokenizer;

/// A vocabulary as the keys of a file give it. By default: 256 bytes, "he" 256, "ll" 257, "hell" 258, "hello"
/// 259, " he" 260, <|endoftext|> 261, <|im_end|> 262, <|im_end|>x 263, [PAD264] 264.
struct TinyVocabulary {
    std::string model = "gpt2", pre = "gpt-2";
    std::vector<std::string> tokens;
    std::vector<std::int32_t> types;
    std::vector<std::string> merges = {"h e", "l l", "he ll", "hell o", "\xC4\xA0 he"};
    std::optional<std::vector<float>> scores;
    std::vector<std::pair<std::string, std::uint32_t>> ids = {{"tokenizer.ggml.eos_token_id", 261}};
    std::optional<bool> add_bos;

    TinyVocabulary() {
        for (int byte = 0; byte < 256; ++byte)
            add(gg::text::written_in_byte_alphabet(std::string(1, static_cast<char>(byte))), 1);
        for (const char* token : {"he", "ll", "hell", "hello", "\xC4\xA0he"}) add(token, 1);
        for (const char* token : {"<|endoftext|>", "<|im_end|>", "<|im_end|>x"}) add(token, 3);
        add("[PAD264]", 5);
    }
    void add(std::string token, std::int32_t type) {
        tokens.push_back(std::move(token));
        types.push_back(type);
    }

    std::vector<std::byte> bytes() const {
        gg::gguf::Writer writer;
        writer.set("tokenizer.ggml.model", model);
        writer.set("tokenizer.ggml.pre", pre);
        writer.set("tokenizer.ggml.tokens", tokens);
        if (!types.empty()) writer.set("tokenizer.ggml.token_type", types);
        if (scores) writer.set("tokenizer.ggml.scores", *scores);
        writer.set("tokenizer.ggml.merges", merges);
        for (const auto& [key, id] : ids) writer.set(key, id);
        if (add_bos) writer.set("tokenizer.ggml.add_bos_token", *add_bos);
        return writer.bytes();
    }
    Tokenizer tokenizer() const {
        const std::vector<std::byte> data = bytes();
        return Tokenizer::from_gguf(gg::gguf::File::parse(data, "tiny.gguf"));
    }
};

/// The tokenizer of the GGUF that an environment variable names, or nothing.
inline std::optional<Tokenizer> tokenizer_of(const char* variable) {
    const char* path = std::getenv(variable);
    if (!path || !*path) return {};
    return Tokenizer::from_gguf(gg::gguf::File::open(path));
}

}  // namespace text_test
