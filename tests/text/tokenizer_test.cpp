#include <thread>

#include "text/golden_files.hpp"
#include "text/scripts_text.hpp"

using namespace text_test;
using Ids = std::vector<std::int32_t>;
using Specials = Tokenizer::Specials;

TEST_CASE("specials come of a text only where they are asked for") {
    const Tokenizer tokenizer = TinyVocabulary().tokenizer();
    const std::string text = "hello<|im_end|>hello<|endoftext|>";
    for (const std::int32_t id : tokenizer.encode(text)) CHECK(!tokenizer.is_special(id));
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
    CHECK(tokenizer.encode(text, Specials::parse) == Ids{259, 262, 259, 261});
    CHECK(tokenizer.encode("", Specials::parse).empty());
    CHECK(tokenizer.encode("<|im_end|>", Specials::parse) == Ids{262});
    // The longest of those that begin at a place.
    CHECK(tokenizer.encode("<|im_end|>x<|im_end|>y", Specials::parse) == Ids{263, 262, 'y'});
    // Half a special is text, and padding is no special.
    CHECK(tokenizer.encode("<|im_end|", Specials::parse) == tokenizer.encode("<|im_end|"));
    CHECK(tokenizer.encode("<<|im_end|>", Specials::parse) == Ids{'<', 262});
    CHECK(tokenizer.encode("[PAD264]", Specials::parse) == tokenizer.encode("[PAD264]"));
    // A special ends the text before it: two blanks are then one piece.
    TinyVocabulary blanks;
    blanks.add("\xC4\xA0\xC4\xA0", 1);
    blanks.merges.push_back("\xC4\xA0 \xC4\xA0");
    CHECK(blanks.tokenizer().encode("a  <", Specials::parse) == Ids{'a', ' ', ' ', '<'});
    CHECK(blanks.tokenizer().encode("a  <|im_end|>", Specials::parse) == Ids{'a', 265, 262});
}

TEST_CASE("roles of tokens") {
    TinyVocabulary vocabulary;
    vocabulary.add("<|reserved_266|>", 3);
    vocabulary.add("<|unknown|>", 2);
    vocabulary.add("mine", 4);
    vocabulary.ids.emplace_back("tokenizer.ggml.bos_token_id", 262);
    vocabulary.ids.emplace_back("tokenizer.ggml.padding_token_id", 262);
    vocabulary.add_bos = true;
    const Tokenizer tokenizer = vocabulary.tokenizer();
    CHECK(tokenizer.size() == 268);
    CHECK(tokenizer.pre_tokenizer() == "gpt-2");
    CHECK(tokenizer.bos() == 262);
    CHECK(tokenizer.eos() == 261);
    CHECK(tokenizer.adds_bos());
    CHECK(tokenizer.find_special("<|im_end|>") == 262);
    CHECK(tokenizer.find_special("mine") == 267);
    CHECK(!tokenizer.find_special("hello"));
    CHECK(!tokenizer.find_special("[PAD264]"));
    for (int id = 0; id < 268; ++id) {
        INFO(id);
        CHECK(tokenizer.is_special(id) == (id >= 261));
        CHECK(tokenizer.is_sampleable(id) == (id != 264 && id != 265));
        CHECK(tokenizer.ends_generation(id) == (id == 261 || id == 262));
    }
    CHECK(!TinyVocabulary().tokenizer().adds_bos());
    CHECK(!TinyVocabulary().tokenizer().bos());
    for (const std::int32_t id : {-1, 268}) {
        CHECK_THROWS_AS(tokenizer.bytes(id), gg::Error);
        CHECK_THROWS_AS(tokenizer.is_special(id), gg::Error);
        CHECK_THROWS_AS(tokenizer.is_sampleable(id), gg::Error);
        CHECK_THROWS_AS(tokenizer.ends_generation(id), gg::Error);
        CHECK_THROWS_AS(tokenizer.decode(Ids{id}), gg::Error);
    }
}

TEST_CASE("a file without token types has ordinary tokens alone") {
    TinyVocabulary vocabulary;
    vocabulary.types.clear();
    const Tokenizer tokenizer = vocabulary.tokenizer();
    CHECK(!tokenizer.is_special(261));
    CHECK(tokenizer.ends_generation(261));
    CHECK(tokenizer.encode("hello") == Ids{259});
}

TEST_CASE("every id has bytes, and its bytes have ids") {
    const Tokenizer& tokenizer = gpt2_tokenizer();
    for (std::int32_t id = 0; id < tokenizer.size(); ++id) {
        const std::string text(tokenizer.bytes(id));
        const Ids ids = tokenizer.encode(text, Specials::parse);
        if (text.empty() || tokenizer.decode(ids) != text || tokenizer.decode(Ids{id}) != text)
            FAIL_CHECK(id);
    }
    CHECK(tokenizer.encode(tokenizer.bytes(50256), Specials::parse) == Ids{50256});
}

TEST_CASE("any bytes come back") {
    Random random{99};
    for (int round = 0; round < 2000; ++round) {
        std::string text;
        for (std::uint64_t count = random.below(100); count > 0; --count)
            text += static_cast<char>(random.below(4) ? random.below(256) : 'a' + random.below(3));
        const Tokenizer& tokenizer = gpt2_tokenizer();
        if (tokenizer.decode(tokenizer.encode(text)) != text) FAIL_CHECK(round);
    }
}

TEST_CASE("a tokenizer outlives the file it was read from, and can be copied and moved") {
    std::optional<Tokenizer> first;
    {
        std::vector<std::byte> bytes = TinyVocabulary().bytes();
        first = Tokenizer::from_gguf(gg::gguf::File::parse(bytes, "gone.gguf"));
        std::fill(bytes.begin(), bytes.end(), std::byte{0});
    }
    Tokenizer copy = *first;
    const Tokenizer moved = std::move(*first);
    first.reset();
    CHECK(copy.encode("hello he") == Ids{259, 260});
    CHECK(moved.encode("hello<|im_end|>", Specials::parse) == Ids{259, 262});
    CHECK(moved.file() == "gone.gguf");
}

TEST_CASE("threads encode at the same time") {
    const std::string text = scripts_text().substr(0, 100'000);
    const Ids expected = gpt2_tokenizer().encode(text);
    std::vector<Ids> found(4);
    std::vector<std::thread> threads;
    for (Ids& ids : found) threads.emplace_back([&] { ids = gpt2_tokenizer().encode(text); });
    for (std::thread& thread : threads) thread.join();
    for (const Ids& ids : found) CHECK(ids == expected);
}
