// FNV-1a with 128 bits: names cache entries and finds damaged ones. It is no defence against forgery.
// Source: Fowler, Noll, Vo; draft-eastlake-fnv.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace gg::cuda {

class Hash {
  public:
    /// Adds bytes; what was added before matters, how it was cut into pieces does not.
    Hash& add_bytes(std::string_view bytes) {
        for (const char byte : bytes) value_ = (value_ ^ static_cast<unsigned char>(byte)) * prime;
        return *this;
    }
    /// Adds a field: its length, then its bytes.
    Hash& add(std::string_view field) {
        add(static_cast<std::uint64_t>(field.size()));
        return add_bytes(field);
    }
    Hash& add(std::uint64_t number) {
        char bytes[8];
        for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(number >> 8 * i);
        return add_bytes({bytes, sizeof bytes});
    }

    /// 32 hexadecimal digits.
    std::string hex() const {
        std::string text(32, '0');
        for (int i = 0; i < 32; ++i)
            text[static_cast<std::size_t>(i)] =
                "0123456789abcdef"[static_cast<unsigned>(value_ >> (124 - 4 * i)) & 15];
        return text;
    }

  private:
    __extension__ using Number = unsigned __int128;
    static constexpr Number prime = (Number{1} << 88) + 0x13b;
    static constexpr Number offset = Number{0x6c62272e07bb0142} << 64 | 0x62b821756295c58d;

    Number value_ = offset;
};

}  // namespace gg::cuda
