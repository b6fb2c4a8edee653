#include "text/scripts_text.hpp"
#include "text/vocabularies.hpp"

#include "catch.hpp"

using namespace text_test;
using gg::text::StreamDecoder;

namespace {

/// Where in a text its symbols begin: valid sequences, and bytes that are in none.
std::vector<bool> symbol_starts(const std::string& text) {
    std::vector<bool> starts(text.size() + 1);
    for (std::size_t at = 0; at < text.size();) {
        starts[at] = true;
        at +=
            static_cast<std::size_t>(gg::text::decode_utf8(text.data() + at, text.data() + text.size()).size);
    }
    starts[text.size()] = true;
    return starts;
}

}  // namespace

TEST_CASE("a stream shows characters when they are whole") {
    const Tokenizer tokenizer = TinyVocabulary().tokenizer();
    StreamDecoder decoder(tokenizer);
    const auto byte = [](int value) { return static_cast<std::int32_t>(value); };
    CHECK(decoder.push(259) == "hello");
    CHECK(decoder.push(byte(0xE4)).empty());
    CHECK(decoder.push(byte(0xB8)).empty());
    CHECK(decoder.push(byte(0xAD)) == "\xE4\xB8\xAD");
    CHECK(decoder.push(byte(0xF0)).empty());
    CHECK(decoder.push(260) == "\xF0 he");
    CHECK(decoder.push(byte(0xFF)) == "\xFF");
    CHECK(decoder.push(byte(0xC3)).empty());
    CHECK(decoder.push(byte(0xC3)) == "\xC3");
    CHECK(decoder.finish() == "\xC3");
    CHECK(decoder.finish().empty());
    CHECK(decoder.push(261) == "<|endoftext|>");
    CHECK_THROWS_AS(decoder.push(265), gg::Error);
}

TEST_CASE("a stream of any ids gives all of their bytes, and never ends inside a character") {
    const Tokenizer tokenizer = TinyVocabulary().tokenizer();
    Random random{11};
    for (int round = 0; round < 3000; ++round) {
        std::vector<std::int32_t> ids;
        for (std::uint64_t count = random.below(40); count > 0; --count)
            // Mostly the first and the later bytes of sequences.
            ids.push_back(
                static_cast<std::int32_t>(random.below(3) ? 0x80 + random.below(0x80) : random.below(265)));
        const std::string whole = tokenizer.decode(ids);
        const std::vector<bool> starts = symbol_starts(whole);
        StreamDecoder decoder(tokenizer);
        std::string text;
        std::size_t pushed = 0;
        for (const std::int32_t id : ids) {
            text += decoder.push(id);
            pushed += tokenizer.bytes(id).size();
            if (text.size() > whole.size() || !starts[text.size()])
                FAIL_CHECK("a push ended inside a sequence");
            if (pushed - text.size() > 3) FAIL_CHECK("more than the start of a sequence was held back");
        }
        text += decoder.finish();
        if (text != whole) FAIL_CHECK("bytes were lost or changed");
    }
}
