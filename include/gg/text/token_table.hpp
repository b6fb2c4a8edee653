// Finds the id of a byte string: a hash table with open addressing over strings that the owner keeps.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace gg::text {

/// Spreads the entropy of all bits over all bits.
constexpr std::uint64_t mix_bits(std::uint64_t x) {
    x *= 0x9E3779B97F4A7C15;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93;
    return x ^ x >> 29;
}

/// A hash of bytes, eight at a time.
inline std::uint64_t hash_bytes(std::string_view text) {
    const char* at = text.data();
    std::size_t left = text.size();
    std::uint64_t hash = left;
    for (; left >= 8; at += 8, left -= 8) {
        std::uint64_t word;
        std::memcpy(&word, at, 8);
        hash = mix_bits(hash ^ word);
    }
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < left; ++i)
        word |= static_cast<std::uint64_t>(static_cast<unsigned char>(at[i])) << 8 * i;
    return mix_bits(hash ^ word);
}

/// Ids by byte string. The strings themselves are found through `text_of(id)`, given to each call.
class TokenTable {
  public:
    /// Room for `count` strings; removes all there are.
    void reset(std::size_t count) { slots_.assign(std::bit_ceil(2 * count + 1), Slot{}); }

    /// Adds a string; returns its earlier id if it is there already, else -1.
    template <class TextOf>
    std::int32_t insert(std::int32_t id, const TextOf& text_of) {
        const std::string_view text = text_of(id);
        const std::uint64_t hash = hash_bytes(text);
        std::size_t i = hash & (slots_.size() - 1);
        for (; slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1))
            if (slots_[i].check == hash >> 32 && text_of(slots_[i].id) == text) return slots_[i].id;
        slots_[i] = {static_cast<std::uint32_t>(hash >> 32), id};
        return -1;
    }

    /// The string's id, or -1.
    template <class TextOf>
    std::int32_t find(std::string_view text, const TextOf& text_of) const {
        if (slots_.empty()) return -1;
        const std::uint64_t hash = hash_bytes(text);
        for (std::size_t i = hash & (slots_.size() - 1); slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1))
            if (slots_[i].check == hash >> 32 && text_of(slots_[i].id) == text) return slots_[i].id;
        return -1;
    }

  private:
    struct Slot {
        std::uint32_t check = 0;  ///< upper half of the hash; the lower one chose the place
        std::int32_t id = -1;
    };

    std::vector<Slot> slots_;
};

}  // namespace gg::text
