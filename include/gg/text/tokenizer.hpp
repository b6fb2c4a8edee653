// Text to token ids and back: byte-level BPE as GGUF files carry it.
//
// A text is cut into pieces by the file's pre-tokenizer; a piece that is a token is that token, any other
// goes through byte-pair encoding. Every byte of the text is in exactly one token, valid UTF-8 or not.
// Errors: gg::Error; from_gguf as vocabulary.hpp and byte_pair.hpp say, and for tokenizers that are not
// supported.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/gguf/file.hpp"
#include "gg/text/byte_pair.hpp"
#include "gg/text/pre_tokenizer.hpp"
#include "gg/text/vocabulary.hpp"

namespace gg::text {

/// The tokenizer of a model. Const members may be called from several threads at once.
class Tokenizer {
  public:
    /// Reads the keys tokenizer.ggml.*; keeps nothing of the file. Refuses SentencePiece and other
    /// tokenizers, pre-tokenizers that are not supported, and vocabularies that do not fit together.
    static Tokenizer from_gguf(const gguf::File& file);

    /// Whether special tokens may come of a text that spells them: never parse what a user wrote.
    enum class Specials { as_text, parse };

    /// The ids of a text. Throws invalid_request if the text has a byte for which the vocabulary has no
    /// token, which can only be a control character or a byte of no character in use.
    std::vector<std::int32_t> encode(std::string_view text, Specials specials = Specials::as_text) const;

    /// The bytes of the ids one after another, specials as their texts. They are UTF-8 if the model wrote it.
    std::string decode(std::span<const std::int32_t> ids) const {
        std::string text;
        for (const std::int32_t id : ids) text += bytes(id);
        return text;
    }

    /// The bytes of one token. Throws invalid_request if there is no such id, here and below.
    std::string_view bytes(std::int32_t id) const {
        require_id(id);
        return vocabulary_.bytes(id);
    }

    /// How many ids there are: 0 to size() - 1.
    int size() const { return vocabulary_.size(); }
    /// Whether the token is no piece of ordinary text: control, user-defined, unknown or unused.
    bool is_special(std::int32_t id) const {
        require_id(id);
        return vocabulary_.kind(id) != TokenKind::normal;
    }
    /// Whether a model may be let produce the id. Unused, reserved and padding ones it may not.
    bool is_sampleable(std::int32_t id) const {
        require_id(id);
        return vocabulary_.is_sampleable(id);
    }
    /// The special token with this text.
    std::optional<std::int32_t> find_special(std::string_view text) const {
        const std::int32_t id = vocabulary_.find_special(text);
        return id < 0 ? std::nullopt : std::optional(id);
    }
    std::optional<std::int32_t> bos() const { return vocabulary_.bos(); }
    std::optional<std::int32_t> eos() const { return vocabulary_.eos(); }
    /// Whether a prompt begins with bos(). encode() does not add it.
    bool adds_bos() const { return vocabulary_.adds_bos(); }
    /// Whether the model ends its answer with this id: the file's eos, and <|return|>, <|call|>,
    /// <|endoftext|> and <|im_end|> where they are special tokens.
    bool ends_generation(std::int32_t id) const {
        require_id(id);
        return std::find(endings_.begin(), endings_.end(), id) != endings_.end();
    }
    /// The name in tokenizer.ggml.pre.
    std::string_view pre_tokenizer() const { return to_string(pre_tokenizer_); }
    /// The file it came from, for messages.
    const std::string& file() const { return vocabulary_.file(); }

  private:
    Tokenizer(Vocabulary vocabulary, MergeTable merges, PreTokenizer pre_tokenizer)
        : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)), pre_tokenizer_(pre_tokenizer) {}

    void require_id(std::int32_t id) const {
        if (id >= 0 && id < size()) return;
        throw Error(ErrorCode::invalid_request, {.file = file(),
                                                 .field = "token id",
                                                 .expected = "0 to " + std::to_string(size() - 1),
                                                 .found = std::to_string(id)});
    }
    void encode_text(std::string_view text, Merger& merger, std::vector<std::int32_t>& ids) const;
    void find_unreachable();

    Vocabulary vocabulary_;
    MergeTable merges_;
    PreTokenizer pre_tokenizer_;
    std::vector<std::int32_t> endings_;
    /// Tokens that byte-pair encoding does not make of their own bytes, ascending: never taken as a whole.
    std::vector<std::int32_t> unreachable_;
};

inline Tokenizer Tokenizer::from_gguf(const gguf::File& file) {
    const auto model = file.get<std::string_view>("tokenizer.ggml.model");
    if (model != "gpt2")
        refuse({.file = file.name(),
                .field = "key tokenizer.ggml.model",
                .expected = "gpt2 (byte-level BPE)",
                .found = gguf::printable(model) + (model == "llama" ? " (SentencePiece)" : ""),
                .next_step = "This tokenizer is not supported."});
    const auto name = file.get<std::string_view>("tokenizer.ggml.pre");
    const std::optional<PreTokenizer> pre_tokenizer = pre_tokenizer_named(name);
    if (!pre_tokenizer) {
        std::string names;
        for (const std::string_view known : pre_tokenizer_names)
            names.append(names.empty() ? "" : ", ").append(known);
        refuse({.file = file.name(),
                .field = "key tokenizer.ggml.pre",
                .expected = "one of " + names,
                .found = gguf::printable(name),
                .next_step = "This pre-tokenizer is not supported."});
    }
    Vocabulary vocabulary = Vocabulary::from_gguf(file);
    MergeTable merges = MergeTable::from_gguf(file, vocabulary);
    Tokenizer tokenizer(std::move(vocabulary), std::move(merges), *pre_tokenizer);
    if (const auto eos = tokenizer.eos()) tokenizer.endings_.push_back(*eos);
    for (const std::string_view text : {"<|return|>", "<|call|>", "<|endoftext|>", "<|im_end|>"})
        if (const auto id = tokenizer.find_special(text)) tokenizer.endings_.push_back(*id);
    // tiktoken takes any piece that is a token as that token; the other vocabularies' own code merges always.
    if (tokenizer.pre_tokenizer_ != PreTokenizer::gpt4o) tokenizer.find_unreachable();
    return tokenizer;
}

inline void Tokenizer::find_unreachable() {
    Merger merger(vocabulary_, merges_);
    std::vector<std::int32_t> ids;
    for (std::int32_t id = 0; id < size(); ++id) {
        if (vocabulary_.kind(id) != TokenKind::normal) continue;
        ids.clear();
        merger.merge(vocabulary_.bytes(id), ids);
        if (ids.size() != 1) unreachable_.push_back(id);
    }
}

inline void Tokenizer::encode_text(std::string_view text, Merger& merger,
                                   std::vector<std::int32_t>& ids) const {
    for_each_piece(pre_tokenizer_, text, [&](std::string_view piece) {
        const std::int32_t whole = vocabulary_.find(piece);
        if (whole >= 0 && !std::binary_search(unreachable_.begin(), unreachable_.end(), whole))
            ids.push_back(whole);
        else
            merger.merge(piece, ids);
    });
}

inline std::vector<std::int32_t> Tokenizer::encode(std::string_view text, Specials specials) const {
    std::vector<std::int32_t> ids;
    ids.reserve(text.size() / 4);
    Merger merger(vocabulary_, merges_);
    std::size_t at = 0;
    while (specials == Specials::parse && at < text.size()) {
        const Vocabulary::Found found = vocabulary_.next_special(text, at);
        encode_text(text.substr(at, found.position - at), merger, ids);
        at = found.position;
        if (found.id < 0) continue;
        ids.push_back(found.id);
        at += vocabulary_.bytes(found.id).size();
    }
    encode_text(text.substr(at), merger, ids);
    return ids;
}

/// Checks the vocabulary against the rows of a model's embedding. More rows than tokens are allowed, as some
/// files pad the embedding; ids from tokenizer.size() on are then not to be sampled. Fewer are refused.
inline void check_vocabulary(const Tokenizer& tokenizer, std::uint64_t embedding_rows) {
    if (embedding_rows >= static_cast<std::uint64_t>(tokenizer.size())) return;
    refuse({.file = tokenizer.file(),
            .field = "key tokenizer.ggml.tokens",
            .expected =
                "at most " + std::to_string(embedding_rows) + " tokens, the rows of tensor token_embd.weight",
            .found = std::to_string(tokenizer.size())});
}

/// Decodes ids one by one to text that can be shown at once: what it returns never ends inside a UTF-8
/// sequence that the next ids may complete. All it returned, with finish(), is what Tokenizer::decode makes
/// of the ids; bytes that are not UTF-8 come as they are.
class StreamDecoder {
  public:
    /// The tokenizer must outlive the decoder.
    explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

    /// The text that has become complete with this id; may be empty.
    std::string push(std::int32_t id) {
        held_ += tokenizer_->bytes(id);
        const std::size_t complete = complete_utf8(held_);
        std::string text = held_.substr(0, complete);
        held_.erase(0, complete);
        return text;
    }

    /// The rest, if the ids ended inside a sequence. The decoder can be used anew.
    std::string finish() { return std::exchange(held_, {}); }

  private:
    const Tokenizer* tokenizer_;
    std::string held_;
};

}  // namespace gg::text
