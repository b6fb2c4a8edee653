// Amounts of memory in messages.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>

namespace gg {

/// "11.3 GiB", "512 bytes".
inline std::string bytes_text(std::uint64_t bytes) {
    constexpr const char* units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) return std::to_string(bytes) + " bytes";
    double value = static_cast<double>(bytes) / 1024;
    int unit = 0;
    for (; value >= 1000 && unit < 3; ++unit) value /= 1024;
    char text[32];
    const auto end =
        std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, value < 10 ? 2 : 1).ptr;
    return std::string(text, end) + " " + units[unit];
}

}  // namespace gg
