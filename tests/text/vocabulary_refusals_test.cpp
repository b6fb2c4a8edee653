// Vocabularies that do not fit together are refused, by file, key, what was expected and what was found.
#include "catch.hpp"
#include "text/vocabularies.hpp"

using namespace text_test;

namespace {

/// The vocabulary is refused for this key; the parts of the message say at least this.
void check_refused(const std::vector<std::byte>& bytes, const std::string& field, const std::string& expected,
                   const std::string& found) {
    INFO(field);
    try {
        Tokenizer::from_gguf(gg::gguf::File::parse(bytes, "bad.gguf"));
        FAIL_CHECK("it was not refused");
    } catch (const gg::Error& error) {
        INFO(error.what());
        CHECK(error.code() == gg::ErrorCode::model_load_failed);
        CHECK(error.mismatch().file == "bad.gguf");
        CHECK(error.mismatch().field == field);
        CHECK(error.mismatch().expected.find(expected) != std::string::npos);
        CHECK(error.mismatch().found.find(found) != std::string::npos);
    }
}

void check_refused(const TinyVocabulary& vocabulary, const std::string& key, const std::string& expected,
                   const std::string& found) {
    check_refused(vocabulary.bytes(), "key tokenizer.ggml." + key, expected, found);
}

}  // namespace

TEST_CASE("the tiny vocabulary itself is accepted") {
    CHECK(TinyVocabulary().tokenizer().encode("hello hell") == std::vector<std::int32_t>{259, ' ', 258});
}

TEST_CASE("SentencePiece and other models are refused by name") {
    TinyVocabulary vocabulary;
    vocabulary.model = "llama";
    check_refused(vocabulary, "model", "gpt2", "llama (SentencePiece)");
    vocabulary.model = "bert";
    check_refused(vocabulary, "model", "gpt2", "bert");
    gg::gguf::Writer nothing;
    nothing.set("general.architecture", "gpt2");
    check_refused(nothing.bytes(), "key tokenizer.ggml.model", "a string", "no such key");
}

TEST_CASE("pre-tokenizers that are not supported are refused by name, with those that are") {
    TinyVocabulary vocabulary;
    vocabulary.pre = "qwen2";
    check_refused(vocabulary, "pre", "one of gpt-2, gpt-4o, smollm", "qwen2");
}

TEST_CASE("a vocabulary without tokens is refused") {
    TinyVocabulary vocabulary;
    vocabulary.tokens.clear();
    check_refused(vocabulary, "tokens", "1 to 2147483647", "0");
}

TEST_CASE("token_type and scores have one entry for each token") {
    TinyVocabulary vocabulary;
    vocabulary.types.pop_back();
    check_refused(vocabulary, "token_type", "265", "264");
    vocabulary = {};
    vocabulary.types.push_back(1);
    check_refused(vocabulary, "token_type", "265", "266");
    vocabulary = {};
    vocabulary.scores = std::vector<float>(264);
    check_refused(vocabulary, "scores", "265", "264");
    vocabulary.scores = std::vector<float>(265);
    CHECK(vocabulary.tokenizer().size() == 265);
}

TEST_CASE("an unknown token type is refused") {
    for (const std::int32_t type : {0, 6, 7, -1}) {
        TinyVocabulary vocabulary;
        vocabulary.types[40] = type;
        check_refused(vocabulary, "token_type[40]", "1 (normal)", std::to_string(type));
    }
}

TEST_CASE("ids with a role are in the vocabulary") {
    for (const char* key : {"bos_token_id", "eos_token_id", "padding_token_id", "fim_pre_token_id"}) {
        TinyVocabulary vocabulary;
        vocabulary.ids = {{std::string("tokenizer.ggml.") + key, 265}};
        check_refused(vocabulary, key, "from 0 to 264", "265");
        vocabulary.ids[0].second = 0xFFFFFFFF;
        check_refused(vocabulary, key, "from 0 to 264", "4294967295");
    }
    TinyVocabulary vocabulary;
    vocabulary.add_bos = true;
    check_refused(vocabulary, "bos_token_id", "add_bos_token is true", "no such key");
}

TEST_CASE("merges name tokens of the vocabulary") {
    for (const char* merge : {"he xyz", "xyz he", "<|im_end|> x", "[PAD264] a", "a \xE4\xB8\xAD"}) {
        TinyVocabulary vocabulary;
        vocabulary.merges[3] = merge;
        check_refused(vocabulary, "merges[3]", "two ordinary tokens", merge);
    }
    TinyVocabulary vocabulary;
    vocabulary.merges[3] = "x y";
    check_refused(vocabulary, "merges[3]", "together are an ordinary token", "x y");
}

TEST_CASE("a merge has one blank, between two tokens") {
    for (const char* merge : {"", " ", "he", " he", "he ", "h  e", "h e l", "h e "}) {
        TinyVocabulary vocabulary;
        vocabulary.merges[1] = merge;
        check_refused(vocabulary, "merges[1]", "one blank between", "\"" + std::string(merge) + "\"");
    }
}

TEST_CASE("a token is there once") {
    TinyVocabulary vocabulary;
    vocabulary.add("hello", 1);
    check_refused(vocabulary, "tokens[265]", "once", "token 259");
    vocabulary = {};
    vocabulary.add("<|im_end|>", 4);
    check_refused(vocabulary, "tokens[265]", "once", "token 262");
}

TEST_CASE("an empty token is refused") {
    for (const std::int32_t type : {1, 3, 4, 5}) {
        TinyVocabulary vocabulary;
        vocabulary.add("", type);
        check_refused(vocabulary, "tokens[265]", "at least one byte", "empty");
    }
}

TEST_CASE("ordinary tokens are written in the byte alphabet") {
    for (const char* token : {"a b", "\xE4\xB8\xAD", "\xFF", "x\xC2\xA0", "\n"}) {
        TinyVocabulary vocabulary;
        vocabulary.add(token, 1);
        check_refused(vocabulary, "tokens[265]", "byte alphabet", "\"");
        vocabulary.types.back() = 4;
        CHECK(vocabulary.tokenizer().bytes(265) == token);
    }
}

TEST_CASE("a special token has a length that is possible") {
    TinyVocabulary vocabulary;
    vocabulary.add(std::string(1025, 'x'), 3);
    check_refused(vocabulary, "tokens[265]", "at most 1024 bytes", "1025 bytes");
}

TEST_CASE("each byte of text has a token") {
    for (const int byte : {0x0A, 0x20, 0x41, 0x7E, 0x80, 0xBF, 0xC2, 0xF0, 0xF4}) {
        TinyVocabulary vocabulary;
        vocabulary.merges.clear();
        vocabulary.types[static_cast<std::size_t>(byte)] = 5;
        check_refused(vocabulary, "tokens", "for each byte", gg::text::detail::hex_byte(byte));
    }
    // Bytes that no text needs may be missing; then a text that has one is refused, and nothing is dropped.
    TinyVocabulary vocabulary;
    vocabulary.types[0x04] = vocabulary.types[0xFF] = 5;
    const Tokenizer tokenizer = vocabulary.tokenizer();
    CHECK(tokenizer.encode("hello").size() == 1);
    for (const char* text : {"a\x04", "\xFF"}) {
        try {
            tokenizer.encode(text);
            FAIL_CHECK("it was not refused");
        } catch (const gg::Error& error) {
            CHECK(error.code() == gg::ErrorCode::invalid_request);
            CHECK(error.mismatch().found == (text[0] == 'a' ? "byte 0x04" : "byte 0xFF"));
        }
    }
    CHECK_THROWS_AS(tokenizer.encode(std::string(5000, 'a') + '\x04'), gg::Error);
}

TEST_CASE("an embedding has a row for each token") {
    const Tokenizer tokenizer = TinyVocabulary().tokenizer();
    CHECK_NOTHROW(gg::text::check_vocabulary(tokenizer, 265));
    CHECK_NOTHROW(gg::text::check_vocabulary(tokenizer, 320));
    try {
        gg::text::check_vocabulary(tokenizer, 264);
        FAIL_CHECK("it was not refused");
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::model_load_failed);
        CHECK(error.mismatch().file == "tiny.gguf");
        CHECK(error.mismatch().field == "key tokenizer.ggml.tokens");
        CHECK(error.mismatch().expected.find("264") != std::string::npos);
        CHECK(error.mismatch().found == "265");
    }
}

TEST_CASE("keys of another type are refused") {
    gg::gguf::Writer writer;
    writer.set("tokenizer.ggml.model", "gpt2");
    writer.set("tokenizer.ggml.pre", "gpt-2");
    writer.set("tokenizer.ggml.tokens", std::vector<std::int32_t>{1, 2});
    check_refused(writer.bytes(), "key tokenizer.ggml.tokens", "string", "i32");
    writer.set("tokenizer.ggml.tokens", "a");
    check_refused(writer.bytes(), "key tokenizer.ggml.tokens", "an array", "string");
    writer.set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
    writer.set("tokenizer.ggml.token_type", std::vector<std::string>{"a", "b"});
    check_refused(writer.bytes(), "key tokenizer.ggml.token_type", "integer", "string");
    writer.set("tokenizer.ggml.model", std::uint32_t{2});
    check_refused(writer.bytes(), "key tokenizer.ggml.model", "a string", "u32 2");
}
