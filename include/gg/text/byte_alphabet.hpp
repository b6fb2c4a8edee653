// The alphabet in which GPT-2's byte-level vocabularies are written: each byte is one printable character.
//
// The bytes 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF are the code points of the same number; the other 68, in
// ascending order, are U+0100 to U+0143. So a blank is written as U+0120.
// Source: bytes_to_unicode in OpenAI's GPT-2 repository.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "gg/text/unicode.hpp"

namespace gg::text {

namespace detail {

constexpr bool byte_is_itself(int byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<short, 0x144> make_byte_of_character() {
    std::array<short, 0x144> bytes{};
    for (short& byte : bytes) byte = -1;
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte)
        bytes[byte_is_itself(byte) ? byte : next++] = static_cast<short>(byte);
    return bytes;
}

inline constexpr std::array<short, 0x144> byte_of_character = make_byte_of_character();

}  // namespace detail

/// Appends the bytes that `written` stands for. Returns false, with part of them appended, at a character
/// outside the alphabet.
inline bool append_bytes_of(std::string_view written, std::string& bytes) {
    const char* const end = written.data() + written.size();
    for (const char* at = written.data(); at < end;) {
        const CodePoint c = decode_utf8(at, end);
        if (c.value >= detail::byte_of_character.size() || detail::byte_of_character[c.value] < 0)
            return false;
        bytes.push_back(static_cast<char>(detail::byte_of_character[c.value]));
        at += c.size;
    }
    return true;
}

/// Bytes as a vocabulary writes them: the inverse of append_bytes_of.
inline std::string written_in_byte_alphabet(std::string_view bytes) {
    static const std::array<std::string, 256> written = [] {
        std::array<std::string, 256> out;
        for (std::size_t c = 0; c < detail::byte_of_character.size(); ++c) {
            const int byte = detail::byte_of_character[c];
            if (byte < 0) continue;
            if (c < 0x80)
                out[byte].assign(1, static_cast<char>(c));
            else
                out[byte]
                    .append(1, static_cast<char>(0xC0 | c >> 6))
                    .append(1, static_cast<char>(0x80 | (c & 0x3F)));
        }
        return out;
    }();
    std::string out;
    for (const char byte : bytes) out += written[static_cast<unsigned char>(byte)];
    return out;
}

}  // namespace gg::text
