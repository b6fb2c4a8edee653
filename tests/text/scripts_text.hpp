// A text of 1 MB in ten scripts, with the traps between them: the twin of scripts_text() in
// tests/reference/tokenizer_goldens.py, which must make the same bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace text_test {

/// Knuth's linear congruential generator; the upper bits are used.
struct Random {
    std::uint64_t state;

    std::uint64_t below(std::uint64_t limit) {
        state = state * 6364136223846793005 + 1442695040888963407;
        return (state >> 33) % limit;
    }
    template <class Items>
    const auto& pick(const Items& items) {
        return items[below(items.size())];
    }
};

struct Range {
    char32_t first, last;
};
using Ranges = std::vector<Range>;

inline void append_utf8(std::string& text, char32_t c) {
    const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
    if (c < 0x80) {
        text += static_cast<char>(c);
    } else if (c < 0x800) {
        text += static_cast<char>(0xC0 | c >> 6);
        tail(0);
    } else if (c < 0x10000) {
        text += static_cast<char>(0xE0 | c >> 12);
        tail(6);
        tail(0);
    } else {
        text += static_cast<char>(0xF0 | c >> 18);
        tail(12);
        tail(6);
        tail(0);
    }
}

inline std::string scripts_text() {
    static const std::vector<Ranges> scripts = {
        {{0x41, 0x5A}, {0x61, 0x7A}, {0x61, 0x7A}, {0x61, 0x7A}, {0xC0, 0x24F}, {0x1E00, 0x1EFF}},  // Latin
        {{0x410, 0x42F}, {0x430, 0x44F}, {0x430, 0x44F}, {0x400, 0x52F}},                  // Cyrillic
        {{0x391, 0x3A9}, {0x3B1, 0x3C9}, {0x370, 0x3FF}, {0x1F00, 0x1FFF}},                // Greek
        {{0x620, 0x64A}, {0x620, 0x64A}, {0x600, 0x6FF}, {0x750, 0x77F}, {0x8A0, 0x8FF}},  // Arabic
        {{0x5D0, 0x5EA}, {0x5D0, 0x5EA}, {0x590, 0x5FF}},                                  // Hebrew
        {{0x904, 0x939}, {0x93A, 0x94F}, {0x900, 0x97F}},                                  // Devanagari
        {{0xE01, 0xE2E}, {0xE2F, 0xE4E}, {0xE01, 0xE5B}},                                  // Thai
        {{0x4E00, 0x9FFF}, {0x4E00, 0x4FFF}, {0x3400, 0x4DBF}, {0x20000, 0x2A6DF}},        // Han
        {{0xAC00, 0xD7A3}, {0xAC00, 0xD7A3}, {0x1100, 0x11FF}},                            // Hangul
        {{0x3041, 0x3096}, {0x30A1, 0x30FA}, {0x3040, 0x30FF}, {0xFF66, 0xFF9F}},          // Kana
    };
    static const Ranges symbols = {{0x1F300, 0x1F6FF}, {0x300, 0x36F}, {0x2010, 0x205E}, {0x2150, 0x218B},
                                   {0x21, 0x2F},       {0x3A, 0x40},   {0x5B, 0x60}};
    static const Ranges digits = {
        {0x30, 0x39}, {0x30, 0x39}, {0x660, 0x669}, {0x966, 0x96F}, {0xFF10, 0xFF19}};
    static const std::vector<std::string_view> gaps = {" ",
                                                       " ",
                                                       " ",
                                                       " ",
                                                       " ",
                                                       " ",
                                                       "  ",
                                                       "   ",
                                                       "\n",
                                                       "\n\n",
                                                       "\r\n",
                                                       "\r\n\r\n",
                                                       "\r",
                                                       "\t",
                                                       " \n",
                                                       "\n ",
                                                       "\xC2\xA0",
                                                       "\xE3\x80\x80",
                                                       "\xE2\x80\xA8",
                                                       "\xC2\x85",
                                                       " \xC2\x85 ",
                                                       ", ",
                                                       ". ",
                                                       "-",
                                                       "/",
                                                       "",
                                                       ""};
    static const std::vector<std::string_view> endings = {"'s",
                                                          "'S",
                                                          "'\xC5\xBF",
                                                          "'t",
                                                          "'ll",
                                                          "'LL",
                                                          "'lL",
                                                          "'re",
                                                          "'vE",
                                                          "'m",
                                                          "'D",
                                                          "'x",
                                                          "'",
                                                          "\xE2\x80\x99s",
                                                          "!/",
                                                          "?\r\n/",
                                                          "...\n",
                                                          "//",
                                                          "\xEF\xBB\xBF",
                                                          "\xE1\xA0\x8E",
                                                          "\xE2\x80\x8D",
                                                          "\xEF\xB8\x8F",
                                                          "\xCC\x81",
                                                          "\xC5\xBF",
                                                          "\xE2\x84\xAA",
                                                          "(",
                                                          ")",
                                                          "_",
                                                          "=>",
                                                          "<|end|>"};
    Random random{2024};
    std::string text;
    while (text.size() < 1'000'000) {
        const Ranges& script = random.pick(scripts);
        for (std::uint64_t words = 1 + random.below(20); words > 0; --words) {
            const std::uint64_t kind = random.below(16);
            const Ranges& ranges = kind == 0 ? digits : kind == 1 ? symbols : script;
            for (std::uint64_t letters = 1 + random.below(9); letters > 0; --letters) {
                const Range range = random.pick(ranges);
                append_utf8(text,
                            range.first + static_cast<char32_t>(random.below(range.last - range.first + 1)));
            }
            if (random.below(6) == 0) text += random.pick(endings);
            text += random.pick(gaps);
        }
    }
    return text;
}

}  // namespace text_test
