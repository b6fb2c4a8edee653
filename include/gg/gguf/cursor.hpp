// A bounds-checked reading position in the bytes of one file. Every read says which field it reads, so that a
// file which ends early is refused by name. Numbers are little-endian, as in GGUF, and need no alignment.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "gg/core/error.hpp"

namespace gg::gguf {

static_assert(std::endian::native == std::endian::little, "gg reads little-endian files in place");

/// Text from a file as it may be shown in a message: control bytes as \xNN, at most `limit` bytes of it.
inline std::string printable(std::string_view text, std::size_t limit = 80) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string shown;
    for (char c : text.substr(0, limit)) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte != 0x7f)
            shown += c;
        else
            shown.append("\\x").append(1, digits[byte >> 4]).append(1, digits[byte & 15]);
    }
    return text.size() > limit ? shown + "..." : shown;
}

/// Names a field for messages; turned into text only when something is wrong with it.
struct Field {
    static constexpr std::uint64_t none = ~std::uint64_t{0};

    std::string_view part;       ///< "offset", "value type"
    std::string_view of = {};    ///< "key", "tensor", or empty for the header's fields
    std::string_view name = {};  ///< the key's or tensor's name, once it is known
    std::uint64_t index = none;  ///< its position in the file, as long as it has no name

    /// "tensor blk.0.attn_q.weight: offset".
    std::string text() const {
        std::string shown(of);
        if (!name.empty())
            shown.append(shown.empty() ? "" : " ").append(printable(name));
        else if (index != none)
            shown.append(" number ").append(std::to_string(index));
        if (!shown.empty() && !part.empty()) shown += ": ";
        return shown.append(part);
    }
};

/// Reads numbers and strings one after another; never beyond the end.
class Cursor {
  public:
    /// `bytes` and `file` (a name for messages) stay the caller's and must outlive the cursor.
    Cursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(&file) {}

    std::uint64_t position() const { return position_; }
    std::uint64_t left() const { return bytes_.size() - position_; }
    const std::byte* here() const { return bytes_.data() + position_; }
    const std::string& file() const { return *file_; }

    /// The next number. Throws gg::Error (model_load_failed) if the file ends before it does.
    template <class T>
    T read(const Field& field) {
        T value;
        std::memcpy(&value, take(sizeof(T), field), sizeof(T));
        return value;
    }

    /// The next `count` bytes.
    const std::byte* take(std::uint64_t count, const Field& field) {
        if (count > left()) ends_early(count, field);
        const std::byte* start = here();
        position_ += count;
        return start;
    }

    /// The next string: a 64-bit length and that many bytes, at most `limit` of them.
    std::string_view read_string(std::uint64_t limit, const Field& field) {
        const auto length = read<std::uint64_t>(field);
        if (length > left())
            refuse_field(field, "a length of at most " + std::to_string(left()) + " (the bytes left)",
                         length);
        if (length > limit) refuse_field(field, "a length of at most " + std::to_string(limit), length);
        return {reinterpret_cast<const char*>(take(length, field)), static_cast<std::size_t>(length)};
    }

    /// Throws model_load_failed for a field of this file.
    [[noreturn]] void refuse_field(const Field& field, std::string expected, std::string found,
                                   std::string next_step = {}) const {
        refuse({.file = *file_,
                .field = field.text(),
                .expected = std::move(expected),
                .found = std::move(found),
                .next_step = std::move(next_step)});
    }
    [[noreturn]] void refuse_field(const Field& field, std::string expected, std::uint64_t found) const {
        refuse_field(field, std::move(expected), std::to_string(found));
    }

  private:
    [[noreturn]] void ends_early(std::uint64_t count, const Field& field) const {
        refuse_field(field, std::to_string(count) + " bytes at offset " + std::to_string(position_),
                     "the end of the file at " + std::to_string(bytes_.size()),
                     "The file is cut short or damaged: get it again.");
    }

    std::span<const std::byte> bytes_;
    const std::string* file_;
    std::uint64_t position_ = 0;
};

}  // namespace gg::gguf
