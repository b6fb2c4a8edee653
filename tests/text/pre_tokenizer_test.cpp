// Pieces as the published regular expressions cut them; the goldens test compares many more through their
// ids.
#include "gg/text/pre_tokenizer.hpp"

#include <ctime>
#include <string>
#include <vector>

#include "catch.hpp"
#include "text/scripts_text.hpp"

using namespace gg::text;
using Pieces = std::vector<std::string>;

namespace {

Pieces pieces(PreTokenizer kind, std::string_view text) {
    Pieces found;
    for_each_piece(kind, text, [&](std::string_view piece) { found.emplace_back(piece); });
    return found;
}

Pieces gpt2(std::string_view text) {
    return pieces(PreTokenizer::gpt2, text);
}
Pieces gpt4o(std::string_view text) {
    return pieces(PreTokenizer::gpt4o, text);
}
Pieces smollm(std::string_view text) {
    return pieces(PreTokenizer::smollm, text);
}

}  // namespace

TEST_CASE("pre-tokenizers have names") {
    CHECK(pre_tokenizer_named("gpt-2") == PreTokenizer::gpt2);
    CHECK(pre_tokenizer_named("gpt-4o") == PreTokenizer::gpt4o);
    CHECK(pre_tokenizer_named("smollm") == PreTokenizer::smollm);
    CHECK(!pre_tokenizer_named("llama-bpe"));
    CHECK(to_string(PreTokenizer::gpt4o) == "gpt-4o");
}

TEST_CASE("gpt-2 pieces") {
    CHECK(gpt2("") == Pieces{});
    CHECK(gpt2("Hello world") == Pieces{"Hello", " world"});
    CHECK(gpt2("I'll don't 'S we've 're") ==
          Pieces{"I", "'ll", " don", "'t", " '", "S", " we", "'ve", " '", "re"});
    CHECK(gpt2("it's 'tis") == Pieces{"it", "'s", " '", "tis"});
    CHECK(gpt2("a  b") == Pieces{"a", " ", " b"});
    CHECK(gpt2("a  ") == Pieces{"a", "  "});
    CHECK(gpt2("a \n b") == Pieces{"a", " \n", " b"});
    CHECK(gpt2("a\nb") == Pieces{"a", "\n", "b"});
    CHECK(gpt2("x12345!?") == Pieces{"x", "12345", "!?"});
    CHECK(gpt2("\xC2\xA0x") == Pieces{"\xC2\xA0", "x"});
    CHECK(gpt2("e\xCC\x81x") == Pieces{"e", "\xCC\x81", "x"});
    CHECK(gpt2("'") == Pieces{"'"});
    CHECK(gpt2("'\xC5\xBF") == Pieces{"'", "\xC5\xBF"});
    CHECK(gpt2("a\xFF\xFE"
               "b") == Pieces{"a", "\xFF\xFE", "b"});
}

TEST_CASE("gpt-4o pieces") {
    CHECK(gpt4o("") == Pieces{});
    CHECK(gpt4o("HelloWorld XMLHttp") == Pieces{"Hello", "World", " XMLHttp"});
    CHECK(gpt4o("JSON'S won'T it'\xC5\xBF he'LLo") ==
          Pieces{"JSON'S", " won'T", " it'\xC5\xBF", " he'LL", "o"});
    CHECK(gpt4o("!Hello !!Hello") == Pieces{"!Hello", " !!", "Hello"});
    CHECK(gpt4o("1234567") == Pieces{"123", "456", "7"});
    CHECK(gpt4o("a 12") == Pieces{"a", " ", "12"});
    CHECK(gpt4o("a//\r\n/ b") == Pieces{"a", "//\r\n/", " b"});
    CHECK(gpt4o(" .\n\nx") == Pieces{" .\n\n", "x"});
    CHECK(gpt4o("a \n \n  b") == Pieces{"a", " \n \n", " ", " b"});
    CHECK(gpt4o("a   b") == Pieces{"a", "  ", " b"});
    CHECK(gpt4o("\tx\t\t1") == Pieces{"\tx", "\t", "\t", "1"});
    CHECK(gpt4o("\r\nx") == Pieces{"\r\n", "x"});
    CHECK(gpt4o("\xEF\xBB\xBFx") == Pieces{"\xEF\xBB\xBFx"});
    CHECK(gpt4o("\xC2\x85x \xC2\x85") == Pieces{"\xC2\x85x", " \xC2\x85"});
    CHECK(gpt4o("\xE1\xA0\x8E") == Pieces{"\xE1\xA0\x8E"});
    // Marks belong to words: Devanagari with a virama, Hebrew with a point.
    CHECK(gpt4o("\xE0\xA4\xB9\xE0\xA4\xBF\xE0\xA4\xA8\xE0\xA5\x8D\xE0\xA4\xA6\xE0\xA5\x80").size() == 1);
    CHECK(gpt4o("\xD7\xA9\xD6\xB8\xD7\x9C").size() == 1);
    // A mark is the symbol before a word, part of it, or a word itself.
    CHECK(gpt4o("\xCC\x81"
                "ab") == Pieces{"\xCC\x81"
                                "ab"});
    CHECK(gpt4o("\xCC\x81"
                "AB") == Pieces{"\xCC\x81", "AB"});
    CHECK(gpt4o("!\xCC\x81") == Pieces{"!\xCC\x81"});
    // Upper case gives back as far as the last letter without case.
    CHECK(gpt4o("A\xC2\xAA"
                "BC D") == Pieces{"A\xC2\xAA", "BC", " D"});
    CHECK(gpt4o("AB\xE4\xB8\xAD"
                "cD") == Pieces{"AB\xE4\xB8\xAD"
                                "c",
                                "D"});
}

TEST_CASE("smollm pieces") {
    CHECK(smollm("a12  3") == Pieces{"a", "1", "2", "  ", "3"});
    CHECK(smollm("a  b 1") == Pieces{"a", " ", " b", " ", "1"});
    CHECK(smollm("it's \xC2\xBD\xE2\x85\xA7x") == Pieces{"it", "'s", " ", "\xC2\xBD", "\xE2\x85\xA7", "x"});
}

TEST_CASE("pieces are the text, whatever bytes it has") {
    text_test::Random random{7};
    const std::vector<std::string_view> parts = {"a",    "B",    "'s",   "'",    " ",        "\n",
                                                 "\r",   "/",    "1",    "!",    "\xCC\x81", "\xE4\xB8\xAD",
                                                 "\xE4", "\xB8", "\xF0", "\xFF", "\xC2\x85", "\xED\xA0\x80"};
    for (int round = 0; round < 5000; ++round) {
        std::string text;
        for (std::uint64_t count = random.below(30); count > 0; --count) text += random.pick(parts);
        for (const PreTokenizer kind : {PreTokenizer::gpt2, PreTokenizer::gpt4o, PreTokenizer::smollm}) {
            std::string joined;
            bool empty = false;
            for_each_piece(kind, text, [&](std::string_view piece) {
                joined += piece;
                empty = empty || piece.empty();
            });
            if (joined != text || empty) FAIL_CHECK(text);
        }
    }
}

TEST_CASE("pre-tokenizing takes time that grows as the text") {
    for (const std::string_view unit : {" ", "\n", "a", "A", "1", "!", "'", "\xCC\x81", "\xC2\xAA", "Aa",
                                        "A\xCC\x81", " \n", "\xFF", "/", "'s"}) {
        for (const PreTokenizer kind : {PreTokenizer::gpt2, PreTokenizer::gpt4o, PreTokenizer::smollm}) {
            std::string text;
            while (text.size() < 1'000'000) text += unit;
            text += 'x';
            const std::clock_t start = std::clock();
            std::size_t count = 0;
            for_each_piece(kind, text, [&](std::string_view) { ++count; });
            INFO(unit);
            // Linear time is some 20 ms, quadratic time minutes.
            CHECK(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC < 2.0);
            CHECK(count > 0);
        }
    }
}
