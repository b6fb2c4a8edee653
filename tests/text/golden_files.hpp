// Reads what tests/data/text holds.
#pragma once

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "text/vocabularies.hpp"

namespace text_test {

using nlohmann::json;

inline std::string read_file(const std::string& name) {
    std::ifstream stream(std::string(GG_TEST_DATA "/text/") + name, std::ios::binary);
    INFO(name);
    REQUIRE(stream);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// The parts of a text between separators; what follows the last one only if it is not empty.
inline std::vector<std::string> split(const std::string& text, const std::string& separator) {
    std::vector<std::string> parts;
    std::size_t at = 0;
    for (std::size_t end; (end = text.find(separator, at)) != text.npos; at = end + separator.size())
        parts.push_back(text.substr(at, end - at));
    if (at < text.size()) parts.push_back(text.substr(at));
    return parts;
}

/// GPT-2's tokenizer, from the files that OpenAI published.
inline const Tokenizer& gpt2_tokenizer() {
    static const Tokenizer tokenizer = [] {
        TinyVocabulary vocabulary;
        const json ids = json::parse(read_file("gpt2-vocab.json"));
        vocabulary.tokens.assign(ids.size(), "");
        for (const auto& [token, id] : ids.items()) vocabulary.tokens.at(id) = token;
        vocabulary.types.assign(ids.size(), 1);
        vocabulary.types.back() = 3;
        vocabulary.merges = split(read_file("gpt2-merges.txt"), "\n");
        vocabulary.merges.erase(vocabulary.merges.begin());  // a line with the format's version
        vocabulary.ids = {{"tokenizer.ggml.bos_token_id", 50256}, {"tokenizer.ggml.eos_token_id", 50256}};
        return vocabulary.tokenizer();
    }();
    return tokenizer;
}

}  // namespace text_test
