// Byte-pair encoding: which neighbouring tokens become one, in which order.
//
// Starting with a token for each byte, the pair of neighbours with the lowest rank becomes one token, the
// leftmost of equals first, until no pair has a rank. The rank belongs to the token that a pair becomes, as
// in tiktoken: it is the place of the first merge in the file's list that makes this token.
//
// Short pieces search for the lowest rank anew each time; long ones keep a heap of the candidates, in
// windows, so that n bytes cost O(n) whatever they are.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "gg/text/vocabulary.hpp"

namespace gg::text {

/// The merges of a vocabulary: rank by pair of tokens, token by rank.
class MergeTable {
  public:
    static constexpr std::uint32_t no_rank = std::numeric_limits<std::uint32_t>::max();

    /// Reads tokenizer.ggml.merges. Refuses, by index, an entry that is not two tokens with one blank between
    /// them, and one whose pieces or whole are not ordinary tokens of the vocabulary.
    static MergeTable from_gguf(const gguf::File& file, const Vocabulary& vocabulary);

    /// The rank of two neighbours, or no_rank.
    std::uint32_t rank(std::int32_t left, std::int32_t right) const {
        if (slots_.empty()) return no_rank;
        for (std::size_t i = place(left, right);; i = (i + 1) & (slots_.size() - 1)) {
            const Slot& slot = slots_[i];
            if ((slot.left == left && slot.right == right) || slot.rank == no_rank) return slot.rank;
        }
    }

    /// The token that pairs of this rank become.
    std::int32_t token(std::uint32_t rank) const { return token_of_rank_[rank]; }

  private:
    struct Slot {
        std::int32_t left = -1;
        std::int32_t right = -1;
        std::uint32_t rank = no_rank;
    };

    std::size_t place(std::int32_t left, std::int32_t right) const {
        const std::uint64_t key = static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32;
        return mix_bits(key | static_cast<std::uint32_t>(right)) & (slots_.size() - 1);
    }

    void insert(std::int32_t left, std::int32_t right, std::uint32_t rank) {
        std::size_t i = place(left, right);
        while (slots_[i].rank != no_rank) {
            if (slots_[i].left == left && slots_[i].right == right) return;
            i = (i + 1) & (slots_.size() - 1);
        }
        slots_[i] = {left, right, rank};
    }

    std::vector<Slot> slots_;
    std::vector<std::int32_t> token_of_rank_;
};

inline MergeTable MergeTable::from_gguf(const gguf::File& file, const Vocabulary& vocabulary) {
    const std::string key = "tokenizer.ggml.merges";
    const auto merges = file.get<std::vector<std::string_view>>(key);
    if (merges.size() >= no_rank)
        refuse({.file = file.name(),
                .field = "key " + key,
                .expected = "fewer than 2^32 - 1 merges",
                .found = std::to_string(merges.size())});
    MergeTable table;
    table.slots_.resize(std::bit_ceil(2 * merges.size() + 1));
    table.token_of_rank_.resize(merges.size(), -1);
    std::vector<std::uint32_t> rank_of_token(static_cast<std::size_t>(vocabulary.size()), no_rank);
    std::string bytes;
    for (std::uint32_t i = 0; i < merges.size(); ++i) {
        const std::string_view merge = merges[i];
        const auto fail = [&](std::string expected) {
            refuse({.file = file.name(),
                    .field = "key " + key + "[" + std::to_string(i) + "]",
                    .expected = std::move(expected),
                    .found = "\"" + gguf::printable(merge) + "\""});
        };
        const std::size_t blank = merge.find(' ');
        if (blank == merge.npos || blank == 0 || blank + 1 == merge.size() ||
            merge.find(' ', blank + 1) != merge.npos)
            fail("two tokens with one blank between them");
        bytes.clear();
        bool written = append_bytes_of(merge.substr(0, blank), bytes);
        const std::size_t left_bytes = bytes.size();
        written = written && append_bytes_of(merge.substr(blank + 1), bytes);
        const std::string_view whole = bytes;
        const std::int32_t left = written ? vocabulary.find(whole.substr(0, left_bytes)) : -1;
        const std::int32_t right = written ? vocabulary.find(whole.substr(left_bytes)) : -1;
        if (left < 0 || right < 0) fail("two ordinary tokens of the vocabulary");
        const std::int32_t token = vocabulary.find(whole);
        if (token < 0) fail("two tokens that together are an ordinary token of the vocabulary");
        std::uint32_t& rank = rank_of_token[token];
        if (rank == no_rank) rank = i;
        table.token_of_rank_[rank] = token;
        table.insert(left, right, rank);
    }
    return table;
}

/// Merges one piece after another. Keeps its memory from piece to piece: one for each thread.
class Merger {
  public:
    Merger(const Vocabulary& vocabulary, const MergeTable& merges)
        : vocabulary_(&vocabulary), merges_(&merges) {}

    /// Appends the tokens of a piece. Throws invalid_request if the vocabulary has no token for one of its
    /// bytes.
    void merge(std::string_view piece, std::vector<std::int32_t>& ids) {
        if (piece.size() <= short_piece)
            merge_short(piece, ids);
        else
            merge_windows(piece, ids);
    }

  private:
    static constexpr std::size_t short_piece = 48;
    static constexpr std::size_t first_window = 512;
    static constexpr std::uint32_t no_rank = MergeTable::no_rank;

    std::size_t length(std::int32_t token) const { return vocabulary_->bytes(token).size(); }
    std::int32_t byte_token(char byte) const {
        const std::int32_t token = vocabulary_->byte_token(static_cast<unsigned char>(byte));
        if (token < 0) refuse_byte(byte);
        return token;
    }
    [[noreturn]] void refuse_byte(char byte) const {
        throw Error(ErrorCode::invalid_request,
                    {.file = vocabulary_->file(),
                     .field = "text to encode",
                     .expected = "bytes that the vocabulary has tokens for",
                     .found = "byte " + detail::hex_byte(static_cast<unsigned char>(byte)),
                     .next_step = "Remove it from the text."});
    }

    void merge_short(std::string_view piece, std::vector<std::int32_t>& ids) const;
    void merge_windows(std::string_view piece, std::vector<std::int32_t>& ids);
    void merge_window(std::string_view window);
    void set_rank(std::uint32_t left);

    const Vocabulary* vocabulary_;
    const MergeTable* merges_;
    // What merge_window() made, and of this what merge_windows() keeps.
    std::vector<std::int32_t> merged_, kept_;
    // In a window: its tokens, the next and previous place of those that are left, the rank of each with the
    // next, and a heap of rank << 32 | place. An entry whose rank is no longer that of its place is out of
    // date.
    std::vector<std::int32_t> tokens_;
    std::vector<std::uint32_t> next_, previous_, ranks_;
    std::vector<std::uint64_t> heap_;
};

inline void Merger::merge_short(std::string_view piece, std::vector<std::int32_t>& ids) const {
    std::int32_t tokens[short_piece];
    std::uint32_t ranks[short_piece];
    std::size_t count = piece.size();
    for (std::size_t i = 0; i < count; ++i) tokens[i] = byte_token(piece[i]);
    for (std::size_t i = 0; i + 1 < count; ++i) ranks[i] = merges_->rank(tokens[i], tokens[i + 1]);
    while (count > 1) {
        std::size_t lowest = 0;
        for (std::size_t i = 1; i + 1 < count; ++i)
            if (ranks[i] < ranks[lowest]) lowest = i;
        if (ranks[lowest] == no_rank) break;
        tokens[lowest] = merges_->token(ranks[lowest]);
        --count;
        for (std::size_t i = lowest + 1; i < count; ++i) tokens[i] = tokens[i + 1];
        for (std::size_t i = lowest + 1; i + 1 < count; ++i) ranks[i] = ranks[i + 1];
        if (lowest > 0) ranks[lowest - 1] = merges_->rank(tokens[lowest - 1], tokens[lowest]);
        if (lowest + 1 < count) ranks[lowest] = merges_->rank(tokens[lowest], tokens[lowest + 1]);
    }
    ids.insert(ids.end(), tokens, tokens + count);
}

// A long piece is merged window by window, in time that grows as its length. That is exact: a list of tokens
// is what merging makes of their bytes if, and only if, each two neighbours alone merge to just these two.
// (The first merge across a boundary of the list would be made in the same order between the two tokens
// alone, as merges elsewhere do not touch them.) Inside a window that holds by itself; where two windows meet
// it is checked, and where it fails the second one begins a token earlier and is longer. A window's last
// tokens lack what follows them and are left to the next one.
inline void Merger::merge_windows(std::string_view piece, std::vector<std::int32_t>& ids) {
    const std::size_t before = ids.size();
    std::size_t begin = 0, size = first_window;
    std::size_t failed = 0;  // the furthest place where two windows did not meet: until it, they only grow
    while (begin < piece.size()) {
        const std::string_view window = piece.substr(begin, size);
        const std::size_t limit = begin + window.size() == piece.size() ? window.size() : size - size / 8;
        merge_window(window);
        kept_.swap(merged_);
        std::size_t kept = window.size();
        for (; kept > limit; kept_.pop_back()) kept -= length(kept_.back());
        size *= 2;
        if (kept_.empty()) continue;
        if (ids.size() > before) {
            const std::int32_t left = ids.back(), right = kept_.front();
            merge_window(piece.substr(begin - length(left), length(left) + length(right)));
            if (merged_.size() != 2 || merged_[0] != left || merged_[1] != right) {
                failed = std::max(failed, begin);
                begin -= length(left);
                ids.pop_back();
                continue;
            }
        }
        ids.insert(ids.end(), kept_.begin(), kept_.end());
        begin += kept;
        size = begin > failed ? first_window : size / 2;
    }
}

inline void Merger::set_rank(std::uint32_t left) {
    const std::uint32_t right = next_[left];
    const std::uint32_t rank =
        right == tokens_.size() ? no_rank : merges_->rank(tokens_[left], tokens_[right]);
    ranks_[left] = rank;
    if (rank == no_rank) return;
    heap_.push_back(static_cast<std::uint64_t>(rank) << 32 | left);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

/// Merges the bytes of a window into merged_.
inline void Merger::merge_window(std::string_view window) {
    if (window.size() >= no_rank)
        throw Error(ErrorCode::invalid_request, "a word of 4 GiB or more cannot be encoded");
    const auto end = static_cast<std::uint32_t>(window.size());
    tokens_.resize(end);
    next_.resize(end);
    previous_.resize(end);
    ranks_.resize(end);
    heap_.clear();
    for (std::uint32_t i = 0; i < end; ++i) tokens_[i] = byte_token(window[i]);
    for (std::uint32_t i = 0; i < end; ++i) {
        next_[i] = i + 1;
        previous_[i] = i - 1;
        ranks_[i] = i + 1 < end ? merges_->rank(tokens_[i], tokens_[i + 1]) : no_rank;
        if (ranks_[i] != no_rank) heap_.push_back(static_cast<std::uint64_t>(ranks_[i]) << 32 | i);
    }
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    while (!heap_.empty()) {
        std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
        const std::uint64_t entry = heap_.back();
        heap_.pop_back();
        const auto left = static_cast<std::uint32_t>(entry);
        if (ranks_[left] != entry >> 32) continue;
        const std::uint32_t right = next_[left];
        tokens_[left] = merges_->token(ranks_[left]);
        ranks_[right] = no_rank;
        next_[left] = next_[right];
        if (next_[left] != end) previous_[next_[left]] = left;
        set_rank(left);
        if (left != 0) set_rank(previous_[left]);
    }
    merged_.clear();
    for (std::uint32_t i = 0; i != end; i = next_[i]) merged_.push_back(tokens_[i]);
}

}  // namespace gg::text
