// Pre-tokenizers: how a text is cut into the pieces that byte-pair encoding works on, each by itself.
//
// They are the published regular expressions, as state machines that read each symbol a bounded number of
// times:
//   gpt-2   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   gpt-4o  W U* L+ S | W U+ L* S | \p{N}{1,3} | ' '?[^\s\p{L}\p{N}]+[\r\n/]* | \s*[\r\n]+ | \s+(?!\S) | \s+
//           with W = [^\r\n\p{L}\p{N}]?, U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], L = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
//           and S = (?i:'s|'t|'re|'ve|'m|'ll|'d)?, where (?i:s) also is U+017F, by Unicode's simple case
//           folding
//   smollm  every \p{N} by itself; the texts between them as gpt-2 cuts them
// Categories are those of Unicode 16, \s is White_Space. A byte that is not UTF-8 is a symbol of
// [^\s\p{L}\p{N}]. Source: OpenAI's tiktoken (r50k_base, o200k_base), Hugging Face's tokenizer of SmolLM2.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "gg/text/unicode.hpp"

namespace gg::text {

enum class PreTokenizer { gpt2, gpt4o, smollm };

/// The pre-tokenizers by the names that tokenizer.ggml.pre gives them.
inline constexpr std::string_view pre_tokenizer_names[] = {"gpt-2", "gpt-4o", "smollm"};

/// The name in tokenizer.ggml.pre.
constexpr std::string_view to_string(PreTokenizer kind) {
    return pre_tokenizer_names[static_cast<int>(kind)];
}

/// The pre-tokenizer of a name; nothing if it is not among pre_tokenizer_names.
constexpr std::optional<PreTokenizer> pre_tokenizer_named(std::string_view name) {
    for (int i = 0; i < 3; ++i)
        if (pre_tokenizer_names[i] == name) return static_cast<PreTokenizer>(i);
    return {};
}

namespace pre_tokenizer_detail {

// The classes of symbols that the expressions ask for. Every symbol has one of letter, number, space and
// other.
inline constexpr unsigned letter = 1;    // \p{L}
inline constexpr unsigned number = 2;    // \p{N}
inline constexpr unsigned space = 4;     // \s
inline constexpr unsigned other = 8;     // [^\s\p{L}\p{N}]
inline constexpr unsigned newline = 16;  // [\r\n]
inline constexpr unsigned upper = 32;    // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
inline constexpr unsigned lower = 64;    // [\p{Ll}\p{Lm}\p{Lo}\p{M}]

struct Symbol {
    unsigned char classes;  ///< 0 at the end of the text
    unsigned char size;
};

constexpr unsigned char classes_of(Category kind) {
    switch (kind) {
        case Category::Lu:
        case Category::Lt:
            return letter | upper;
        case Category::Ll:
            return letter | lower;
        case Category::Lm:
        case Category::Lo:
            return letter | upper | lower;
        case Category::Mn:
        case Category::Mc:
        case Category::Me:
            return other | upper | lower;
        case Category::Nd:
        case Category::Nl:
        case Category::No:
            return number;
        default:
            return other;
    }
}

constexpr unsigned char classes_of(char32_t c) {
    if (c == '\r' || c == '\n') return space | newline;
    return is_white_space(c) ? static_cast<unsigned char>(space) : classes_of(category(c));
}

constexpr std::array<Symbol, 128> make_ascii_symbols() {
    std::array<Symbol, 128> symbols{};
    for (char32_t c = 0; c < 128; ++c) symbols[c] = {classes_of(c), 1};
    return symbols;
}

inline constexpr std::array<Symbol, 128> ascii_symbols = make_ascii_symbols();

inline Symbol symbol_at(const char* at, const char* end) {
    if (at == end) return {0, 0};
    const auto byte = static_cast<unsigned char>(*at);
    if (byte < 128) return ascii_symbols[byte];
    const CodePoint c = decode_utf8(at, end);
    return {classes_of(c.value), static_cast<unsigned char>(c.size)};
}

/// The end of the run of symbols that have one of the classes.
inline const char* skip(const char* at, const char* end, unsigned classes) {
    for (Symbol s = symbol_at(at, end); s.classes & classes; s = symbol_at(at, end)) at += s.size;
    return at;
}

/// Bytes of 's 't 're 've 'm 'll 'd at `at`, or 0. `fold`: in any case, U+017F included.
inline int contraction(const char* at, const char* end, bool fold) {
    if (end - at < 2 || *at != '\'') return 0;
    const auto letter_at = [&](int i) -> char {
        if (at + i >= end) return 0;
        return fold && at[i] >= 'A' && at[i] <= 'Z' ? static_cast<char>(at[i] + 32) : at[i];
    };
    const char second = letter_at(2);
    switch (letter_at(1)) {
        case 's':
        case 't':
        case 'm':
        case 'd':
            return 2;
        case 'r':
        case 'v':
            return second == 'e' ? 3 : 0;
        case 'l':
            return second == 'l' ? 3 : 0;
        case '\xC5':
            return fold && second == '\xBF' ? 3 : 0;
        default:
            return 0;
    }
}

/// \s+(?!\S)|\s+ where a white space is: all of the run at the end of the text, else all but its last symbol,
/// unless it is the only one.
inline const char* white_space(const char* at, const char* end) {
    const char* last = at;
    const char* run = at;
    for (Symbol s = symbol_at(run, end); s.classes & space; s = symbol_at(run, end)) {
        last = run;
        run += s.size;
    }
    return run == end || last == at ? run : last;
}

/// The end of the piece at `at`.
inline const char* gpt2_piece(const char* at, const char* end) {
    if (const int size = contraction(at, end, false)) return at + size;
    const char* body = at;
    Symbol first = symbol_at(at, end);
    if (*at == ' ') {
        const Symbol next = symbol_at(at + 1, end);
        if (next.classes & (letter | number | other)) {
            body = at + 1;
            first = next;
        }
    }
    if (first.classes & space) return white_space(at, end);
    return skip(body + first.size, end, first.classes & (letter | number | other));
}

/// U*L+ or else U+L*, with its contraction, at `at`; nullptr if neither fits. `only_lower`: the first alone.
///
/// U* takes the whole run of U. If an L follows, L+ takes over there. If none does, U* gives back symbols
/// until one is an L too: the match ends after the last such symbol of the run. Without any, U+ keeps the
/// run.
inline const char* cased_word(const char* at, const char* end, bool only_lower) {
    const char* run = at;
    const char* after_last_lower = nullptr;
    Symbol s = symbol_at(run, end);
    for (; s.classes & upper; s = symbol_at(run, end)) {
        run += s.size;
        if (s.classes & lower) after_last_lower = run;
    }
    const char* word = nullptr;
    if (s.classes & lower)
        word = skip(run, end, lower);
    else if (after_last_lower)
        word = after_last_lower;
    else if (run != at && !only_lower)
        word = run;
    return word ? word + contraction(word, end, true) : nullptr;
}

/// The end of the piece at `at`.
inline const char* gpt4o_piece(const char* at, const char* end) {
    const Symbol first = symbol_at(at, end);
    if (first.classes & letter) return cased_word(at, end, false);
    if (first.classes & number) {
        const char* piece = at + first.size;
        for (int count = 1; count < 3; ++count) {
            const Symbol s = symbol_at(piece, end);
            if (!(s.classes & number)) break;
            piece += s.size;
        }
        return piece;
    }
    if (!(first.classes & newline)) {
        // The symbol before a word; a combining mark may also be the word itself, which U*L+ tries before
        // U+L*.
        const bool mark = first.classes & lower;
        if (const char* word = cased_word(at + first.size, end, mark)) return word;
        if (mark) return cased_word(at, end, false);
    }
    const char* body = *at == ' ' ? at + 1 : at;
    if (symbol_at(body, end).classes & other) {
        body = skip(body, end, other);
        while (body < end && (*body == '\r' || *body == '\n' || *body == '/')) ++body;
        return body;
    }
    const char* after_newline = nullptr;
    const char* run = at;
    for (Symbol s = symbol_at(run, end); s.classes & space; s = symbol_at(run, end)) {
        run += s.size;
        if (s.classes & newline) after_newline = run;
    }
    return after_newline ? after_newline : white_space(at, end);
}

template <class Next, class Visit>
void each_piece(const char* at, const char* end, Next next, Visit& visit) {
    while (at < end) {
        const char* piece_end = next(at, end);
        visit(std::string_view(at, static_cast<std::size_t>(piece_end - at)));
        at = piece_end;
    }
}

template <class Visit>
void each_smollm_piece(const char* at, const char* end, Visit& visit) {
    while (at < end) {
        const char* segment = skip(at, end, letter | space | other);
        each_piece(at, segment, gpt2_piece, visit);
        at = segment;
        if (at < end) {
            const int size = symbol_at(at, end).size;
            visit(std::string_view(at, static_cast<std::size_t>(size)));
            at += size;
        }
    }
}

}  // namespace pre_tokenizer_detail

/// Calls visit(std::string_view piece) for every piece of the text, in order; together they are the text.
template <class Visit>
void for_each_piece(PreTokenizer kind, std::string_view text, Visit&& visit) {
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    namespace detail = pre_tokenizer_detail;
    switch (kind) {
        case PreTokenizer::gpt2:
            return detail::each_piece(begin, end, detail::gpt2_piece, visit);
        case PreTokenizer::gpt4o:
            return detail::each_piece(begin, end, detail::gpt4o_piece, visit);
        case PreTokenizer::smollm:
            return detail::each_smollm_piece(begin, end, visit);
    }
}

}  // namespace gg::text
