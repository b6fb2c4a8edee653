// The tokens of a byte-level BPE vocabulary: their bytes, their kinds, and the ids with a role.
//
// Format: tokenizer.ggml.model is "gpt2"; tokenizer.ggml.tokens holds the tokens' texts, ordinary ones in the
// byte alphabet, all others as plain text; tokenizer.ggml.token_type holds their kinds (all ordinary if
// absent).
//
// Errors: gg::Error, model_load_failed, naming file, key and index, for anything that does not fit together.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/gguf/file.hpp"
#include "gg/text/byte_alphabet.hpp"
#include "gg/text/token_table.hpp"

namespace gg::text {

/// What tokenizer.ggml.token_type says. Bytes as tokens (6) belong to SentencePiece and are refused.
enum class TokenKind : unsigned char { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5 };

/// The tokens of a file, owned.
class Vocabulary {
  public:
    /// The longest text of a token that is not ordinary, bytes.
    static constexpr std::size_t max_special_bytes = 1024;

    static Vocabulary from_gguf(const gguf::File& file) {
        Vocabulary vocabulary;
        vocabulary.file_ = file.name();
        vocabulary.read_kinds(file);
        vocabulary.read_tokens(file);
        vocabulary.read_roles(file);
        return vocabulary;
    }

    const std::string& file() const { return file_; }
    std::int32_t size() const { return static_cast<std::int32_t>(kinds_.size()); }
    /// `id` must be from 0 to size() - 1, here and below.
    std::string_view bytes(std::int32_t id) const {
        return {bytes_.data() + offsets_[id], offsets_[id + 1] - offsets_[id]};
    }
    TokenKind kind(std::int32_t id) const { return kinds_[id]; }
    bool is_sampleable(std::int32_t id) const { return sampleable_[id]; }

    /// The ordinary token with these bytes, or -1.
    std::int32_t find(std::string_view bytes) const { return ordinary_.find(bytes, text_of()); }
    /// The special token with this text, or -1. Unused ones are not found.
    std::int32_t find_special(std::string_view text) const { return special_.find(text, text_of()); }
    /// The ordinary token of one byte, or -1.
    std::int32_t byte_token(unsigned char byte) const { return byte_tokens_[byte]; }

    /// A special token in a text. Not found: position is the text's size and id -1.
    struct Found {
        std::size_t position;
        std::int32_t id;
    };

    /// The first special token from `from` on; where several begin, the longest.
    Found next_special(std::string_view text, std::size_t from) const {
        for (std::size_t position = from; position < text.size(); ++position) {
            if (!special_starts_[static_cast<unsigned char>(text[position])]) continue;
            for (const std::size_t length : special_lengths_) {
                if (length > text.size() - position) continue;
                const std::int32_t id = find_special(text.substr(position, length));
                if (id >= 0) return {position, id};
            }
        }
        return {text.size(), -1};
    }

    std::optional<std::int32_t> bos() const { return bos_; }
    std::optional<std::int32_t> eos() const { return eos_; }
    bool adds_bos() const { return adds_bos_; }

  private:
    struct TextOf {
        const Vocabulary* vocabulary;
        std::string_view operator()(std::int32_t id) const { return vocabulary->bytes(id); }
    };
    TextOf text_of() const { return {this}; }
    [[noreturn]] void refuse_key(const std::string& key, std::string expected, std::string found) const {
        refuse({.file = file_,
                .field = "key " + key,
                .expected = std::move(expected),
                .found = std::move(found)});
    }
    [[noreturn]] void refuse_token(std::int32_t id, std::string expected, std::string found) const {
        refuse_key("tokenizer.ggml.tokens[" + std::to_string(id) + "]", std::move(expected),
                   std::move(found));
    }

    void read_kinds(const gguf::File& file);
    void read_tokens(const gguf::File& file);
    void append_token(std::int32_t id, std::string_view text);
    void require_bytes() const;
    void read_roles(const gguf::File& file);

    std::string file_;
    std::string bytes_;                   ///< of all tokens, one after another
    std::vector<std::uint32_t> offsets_;  ///< size() + 1 places in bytes_
    std::vector<TokenKind> kinds_;
    std::vector<bool> sampleable_;
    TokenTable ordinary_;
    TokenTable special_;
    std::array<bool, 256> special_starts_{};
    std::vector<std::size_t> special_lengths_;  ///< each once, longest first
    std::array<std::int32_t, 256> byte_tokens_{};
    std::optional<std::int32_t> bos_, eos_;
    bool adds_bos_ = false;
};

namespace detail {

/// Texts that fill up a vocabulary: [PAD123], <|reserved_200000|>, <|reserved_special_token_7|>.
inline bool is_filler(std::string_view text) {
    for (const auto& [start, end] : {std::pair<std::string_view, std::string_view>{"[PAD", "]"},
                                     {"<|reserved_special_token_", "|>"},
                                     {"<|reserved_", "|>"}}) {
        if (!text.starts_with(start) || !text.ends_with(end) || text.size() <= start.size() + end.size())
            continue;
        const std::string_view number = text.substr(start.size(), text.size() - start.size() - end.size());
        if (number.find_first_not_of("0123456789") == std::string_view::npos) return true;
    }
    return false;
}

/// Bytes that ordinary text has no need of: control characters, and what starts or continues no character in
/// use (planes 4 to 11 are unassigned). Published vocabularies lack some of them.
constexpr bool byte_may_be_missing(int byte) {
    return (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7F || byte == 0xC0 ||
           byte == 0xC1 || byte == 0xF1 || byte == 0xF2 || byte >= 0xF5;
}

inline std::string hex_byte(int byte) {
    constexpr char digits[] = "0123456789ABCDEF";
    return {'0', 'x', digits[byte >> 4 & 15], digits[byte & 15]};
}

}  // namespace detail

inline void Vocabulary::read_kinds(const gguf::File& file) {
    const gguf::Value* tokens = file.find("tokenizer.ggml.tokens");
    const std::uint64_t count = tokens && tokens->is_array() ? tokens->count() : 0;
    if (!tokens) refuse_key("tokenizer.ggml.tokens", "an array of strings", "no such key");
    if (count == 0 || count > std::numeric_limits<std::int32_t>::max())
        refuse_key("tokenizer.ggml.tokens", "an array of 1 to 2147483647 strings", tokens->describe());
    for (const char* name : {"token_type", "scores"}) {
        const std::string key = std::string("tokenizer.ggml.") + name;
        const gguf::Value* value = file.find(key);
        if (value && (!value->is_array() || value->count() != count))
            refuse_key(key, "an array of " + std::to_string(count) + " numbers, one for each token",
                       value->describe());
    }
    kinds_.assign(count, TokenKind::normal);
    const auto types = file.get_if<std::vector<std::int32_t>>("tokenizer.ggml.token_type");
    if (!types) return;
    for (std::size_t i = 0; i < count; ++i) {
        if ((*types)[i] < 1 || (*types)[i] > 5)
            refuse_key("tokenizer.ggml.token_type[" + std::to_string(i) + "]",
                       "1 (normal), 2 (unknown), 3 (control), 4 (user-defined) or 5 (unused)",
                       std::to_string((*types)[i]));
        kinds_[i] = static_cast<TokenKind>((*types)[i]);
    }
}

inline void Vocabulary::read_tokens(const gguf::File& file) {
    const auto texts = file.get<std::vector<std::string_view>>("tokenizer.ggml.tokens");
    std::size_t specials = 0, unused = 0, bytes = 0;
    for (std::size_t i = 0; i < texts.size(); ++i) {
        specials += kinds_[i] != TokenKind::normal && kinds_[i] != TokenKind::unused;
        unused += kinds_[i] == TokenKind::unused;
        bytes += texts[i].size();
    }
    if (bytes > std::numeric_limits<std::uint32_t>::max())
        refuse_key("tokenizer.ggml.tokens", "less than 4 GiB of text", std::to_string(bytes) + " bytes");
    bytes_.reserve(bytes);
    offsets_.reserve(texts.size() + 1);
    offsets_.push_back(0);
    ordinary_.reset(texts.size() - specials - unused);
    special_.reset(specials);
    for (std::size_t i = 0; i < texts.size(); ++i) append_token(static_cast<std::int32_t>(i), texts[i]);
    for (int byte = 0; byte < 256; ++byte) {
        const char text = static_cast<char>(byte);
        byte_tokens_[byte] = find({&text, 1});
    }
    require_bytes();
    std::sort(special_lengths_.begin(), special_lengths_.end(), std::greater<>());
    special_lengths_.erase(std::unique(special_lengths_.begin(), special_lengths_.end()),
                           special_lengths_.end());
}

inline void Vocabulary::append_token(std::int32_t id, std::string_view text) {
    if (text.empty()) refuse_token(id, "a token of at least one byte", "an empty string");
    const TokenKind kind = kinds_[id];
    if (kind != TokenKind::normal) {
        if (text.size() > max_special_bytes)
            refuse_token(id, "a special token of at most " + std::to_string(max_special_bytes) + " bytes",
                         std::to_string(text.size()) + " bytes");
        bytes_ += text;
    } else if (!append_bytes_of(text, bytes_)) {
        refuse_token(id, "characters of the byte alphabet alone, as the token is of type 1 (normal)",
                     "\"" + gguf::printable(text) + "\"");
    }
    offsets_.push_back(static_cast<std::uint32_t>(bytes_.size()));
    sampleable_.push_back(kind == TokenKind::normal ||
                          (kind != TokenKind::unused && !detail::is_filler(text)));
    if (kind == TokenKind::unused) return;
    TokenTable& table = kind == TokenKind::normal ? ordinary_ : special_;
    if (const std::int32_t earlier = table.insert(id, text_of()); earlier >= 0)
        refuse_token(id, "each token once",
                     "\"" + gguf::printable(text) + "\", which is token " + std::to_string(earlier) + " too");
    if (kind != TokenKind::normal) {
        special_starts_[static_cast<unsigned char>(text[0])] = true;
        special_lengths_.push_back(text.size());
    }
}

inline void Vocabulary::require_bytes() const {
    for (int byte = 0; byte < 256; ++byte) {
        if (byte_tokens_[byte] >= 0 || detail::byte_may_be_missing(byte)) continue;
        const char text = static_cast<char>(byte);
        refuse_key("tokenizer.ggml.tokens", "a token of type 1 (normal) for each byte of text",
                   "none for byte " + detail::hex_byte(byte) + ", written \"" +
                       written_in_byte_alphabet({&text, 1}) + "\"");
    }
}

inline void Vocabulary::read_roles(const gguf::File& file) {
    constexpr std::string_view start = "tokenizer.ggml.", end = "_token_id";
    for (const gguf::Entry& entry : file.metadata()) {
        if (!entry.key.starts_with(start) || !entry.key.ends_with(end)) continue;
        const std::string key(entry.key);
        const auto id = file.get<std::int64_t>(entry.key);
        if (id < 0 || id >= size())
            refuse_key(key, "a token id from 0 to " + std::to_string(size() - 1), std::to_string(id));
    }
    const auto role = [&](std::string_view key) -> std::optional<std::int32_t> {
        return file.get_if<std::int32_t>(key);
    };
    bos_ = role("tokenizer.ggml.bos_token_id");
    eos_ = role("tokenizer.ggml.eos_token_id");
    adds_bos_ = file.get_if<bool>("tokenizer.ggml.add_bos_token").value_or(false);
    if (adds_bos_ && !bos_)
        refuse_key("tokenizer.ggml.bos_token_id", "a token id, as add_bos_token is true", "no such key");
}

}  // namespace gg::text
