#include "gg/text/unicode.hpp"

#include <array>
#include <set>
#include <string>

#include "catch.hpp"
#include "gg/text/byte_alphabet.hpp"

using namespace gg::text;

TEST_CASE("every code point has the category of Unicode 16") {
    // How many code points each category has, in the order of Category.
    const std::array<int, category_count> expected = {
        1858, 2258, 31,  404, 136477, 2020, 468,  13, 760, 236, 915, 10,  27,   79,     77,
        12,   10,   640, 950, 63,     125,  7376, 17, 1,   1,   65,  170, 2048, 137468, 819533};
    std::array<int, category_count> counts{};
    for (char32_t c = 0; c <= 0x10FFFF; ++c) ++counts[static_cast<std::size_t>(category(c))];
    CHECK(counts == expected);
    CHECK(category(U'A') == Category::Lu);
    CHECK(category(0x01C5) == Category::Lt);
    CHECK(category(0x02B0) == Category::Lm);
    CHECK(category(0x093C) == Category::Mn);
    CHECK(category(0x0903) == Category::Mc);
    CHECK(category(0x20DD) == Category::Me);
    CHECK(category(0x2160) == Category::Nl);
    CHECK(category(0x00BD) == Category::No);
    CHECK(category(0x200D) == Category::Cf);
    CHECK(category(0xD800) == Category::Cs);
    CHECK(category(0x10FFFD) == Category::Co);
    CHECK(category(0x10FFFF) == Category::Cn);
    CHECK(category(0x110000) == Category::Cn);
    // New in Unicode 16: Garay capital letter A, and the Latin letter for lambda with stroke.
    CHECK(category(0x10D50) == Category::Lu);
    CHECK(category(0xA7DA) == Category::Lu);
}

TEST_CASE("white space is the property White_Space") {
    std::set<char32_t> found;
    for (char32_t c = 0; c <= 0x10FFFF; ++c)
        if (is_white_space(c)) found.insert(c);
    CHECK(found == std::set<char32_t>{0x9,    0xA,    0xB,    0xC,    0xD,    0x20,   0x85,   0xA0,   0x1680,
                                      0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                                      0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000});
}

TEST_CASE("UTF-8 is decoded, and broken UTF-8 is a symbol for each byte") {
    const auto decode = [](std::string_view text) {
        const CodePoint c = decode_utf8(text.data(), text.data() + text.size());
        return std::pair(c.value, c.size);
    };
    using Pair = std::pair<char32_t, int>;
    CHECK(decode("A") == Pair{U'A', 1});
    CHECK(decode(std::string_view("\0", 1)) == Pair{0, 1});
    CHECK(decode("\xC2\x80") == Pair{0x80, 2});
    CHECK(decode("\xDF\xBFz") == Pair{0x7FF, 2});
    CHECK(decode("\xE0\xA0\x80") == Pair{0x800, 3});
    CHECK(decode("\xEF\xBF\xBF") == Pair{0xFFFF, 3});
    CHECK(decode("\xF0\x90\x80\x80") == Pair{0x10000, 4});
    CHECK(decode("\xF4\x8F\xBF\xBF") == Pair{0x10FFFF, 4});
    for (const std::string_view broken :
         {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE1\x80",
          "\xE1\x80\x41", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF1\x80\x80",
          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
        INFO(written_in_byte_alphabet(broken));
        CHECK(decode(broken) == Pair{invalid_code_point, 1});
    }
}

TEST_CASE("text is complete up to a sequence that more bytes could finish") {
    CHECK(complete_utf8("") == 0);
    CHECK(complete_utf8("abc") == 3);
    CHECK(complete_utf8("a\xC3") == 1);
    CHECK(complete_utf8("a\xC3\xA4") == 3);
    CHECK(complete_utf8("a\xE4\xB8") == 1);
    CHECK(complete_utf8("a\xE4") == 1);
    CHECK(complete_utf8("a\xE4\xB8\xAD") == 4);
    CHECK(complete_utf8("\xF0\x9F\x98") == 0);
    CHECK(complete_utf8("\xF0\x9F\x98\x80") == 4);
    // What nothing can complete is not held back.
    CHECK(complete_utf8("a\xFF") == 2);
    CHECK(complete_utf8("a\x80\x80") == 3);
    CHECK(complete_utf8("\xE0\x80") == 2);
    CHECK(complete_utf8("\xED\xA0") == 2);
    CHECK(complete_utf8("\xF4\x90") == 2);
    CHECK(complete_utf8("\xC0") == 1);
    // A broken sequence before one that may go on.
    CHECK(complete_utf8("\xE4\xB8\xC3") == 2);
}

TEST_CASE("the byte alphabet writes each byte as one character") {
    std::set<std::string> letters;
    for (int byte = 0; byte < 256; ++byte) {
        const std::string raw(1, static_cast<char>(byte));
        const std::string written = written_in_byte_alphabet(raw);
        letters.insert(written);
        std::string back;
        CHECK(append_bytes_of(written, back));
        CHECK(back == raw);
    }
    CHECK(letters.size() == 256);
    CHECK(written_in_byte_alphabet("a b\n") ==
          "a\xC4\xA0"
          "b\xC4\x8A");
    std::string ignored;
    for (const char* outside : {" ", "\xC2\xA0", "\xC2\xAD", "\xC5\x84", "\xE4\xB8\xAD", "\xFF", "\n"})
        CHECK(!append_bytes_of(outside, ignored));
}
