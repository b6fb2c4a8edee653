// Unicode for tokenizers: general categories and white space of Unicode 16.0, and UTF-8 that may be broken.
//
// A byte that belongs to no valid UTF-8 sequence (RFC 3629: no overlong forms, surrogates, or values above
// U+10FFFF) is a symbol of its own, one byte long and of category Cn, so that no byte is ever lost.
#pragma once

#include <cstddef>
#include <string_view>

#include "gg/text/unicode_tables.hpp"

namespace gg::text {

/// General categories, in the order of unicode_tables.hpp.
// clang-format off
enum class Category : unsigned char {
    Lu, Ll, Lt, Lm, Lo, Mn, Mc, Me, Nd, Nl, No, Pc, Pd, Ps, Pe, Pi, Pf, Po, Sm, Sc, Sk, So, Zs, Zl, Zp,
    Cc, Cf, Cs, Co, Cn
};
// clang-format on

inline constexpr int category_count = 30;

/// The general category; Cn for anything above U+10FFFF.
constexpr Category category(char32_t c) {
    if (c > 0x10FFFF) return Category::Cn;
    return static_cast<Category>(unicode_tables::pages[unicode_tables::page_of[c >> 8] * 256 + (c & 255)] -
                                 'A');
}

/// The property White_Space, which is what \s means in Unicode regular expressions.
constexpr bool is_white_space(char32_t c) {
    const Category kind = category(c);
    if (kind == Category::Zs || kind == Category::Zl || kind == Category::Zp) return true;
    return (c >= 0x09 && c <= 0x0D) || c == 0x85;
}

/// What a code point that is not one has as its value.
inline constexpr char32_t invalid_code_point = 0xFFFFFFFF;

/// A symbol of a text: a code point and its bytes, or invalid_code_point and 1.
struct CodePoint {
    char32_t value;
    int size;
};

namespace detail {

/// What may follow a first byte: the sequence's length (0: it starts none) and the range of the second byte.
struct Utf8Lead {
    int size;
    unsigned char low, high;
};

constexpr Utf8Lead utf8_lead(unsigned char byte) {
    if (byte < 0x80) return {1, 0, 0};
    if (byte < 0xC2 || byte > 0xF4) return {0, 0, 0};
    if (byte < 0xE0) return {2, 0x80, 0xBF};
    if (byte < 0xF0) {
        const bool overlong = byte == 0xE0, surrogates = byte == 0xED;
        return {3, static_cast<unsigned char>(overlong ? 0xA0 : 0x80),
                static_cast<unsigned char>(surrogates ? 0x9F : 0xBF)};
    }
    return {4, static_cast<unsigned char>(byte == 0xF0 ? 0x90 : 0x80),
            static_cast<unsigned char>(byte == 0xF4 ? 0x8F : 0xBF)};
}

/// How many bytes from `at` on fit the sequence that the first one starts; at most its length.
constexpr int utf8_matching(Utf8Lead lead, const char* at, const char* end) {
    int matching = 1;
    while (matching < lead.size && at + matching < end) {
        const auto byte = static_cast<unsigned char>(at[matching]);
        const bool second = matching == 1;
        if (byte < (second ? lead.low : 0x80) || byte > (second ? lead.high : 0xBF)) break;
        ++matching;
    }
    return matching;
}

}  // namespace detail

/// The symbol at `at`, which must be before `end`.
constexpr CodePoint decode_utf8(const char* at, const char* end) {
    const auto first = static_cast<unsigned char>(*at);
    if (first < 0x80) return {first, 1};
    const detail::Utf8Lead lead = detail::utf8_lead(first);
    if (lead.size == 0 || detail::utf8_matching(lead, at, end) < lead.size) return {invalid_code_point, 1};
    char32_t value = first & (0xFF >> (lead.size + 1));
    for (int i = 1; i < lead.size; ++i) value = value << 6 | (static_cast<unsigned char>(at[i]) & 0x3F);
    return {value, lead.size};
}

/// The length of the text without a last sequence that further bytes could still complete.
constexpr std::size_t complete_utf8(std::string_view text) {
    const char* const end = text.data() + text.size();
    for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
        const char* at = end - back;
        const detail::Utf8Lead lead = detail::utf8_lead(static_cast<unsigned char>(*at));
        if (lead.size == 0) continue;
        const int matching = detail::utf8_matching(lead, at, end);
        return matching < lead.size && at + matching == end ? text.size() - back : text.size();
    }
    return text.size();
}

}  // namespace gg::text
