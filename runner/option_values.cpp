#include "option_values.hpp"

#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

namespace gg::runner {

CLI::Validator number_range(double low, double high, const std::string& text) {
    return CLI::Validator(
        [low, high, text](std::string& word) {
            double value = 0;
            const bool good = CLI::detail::lexical_cast(word, value) && value >= low && value <= high;
            return good ? std::string() : "expected " + text + ", found " + word;
        },
        "");
}

std::optional<std::uint64_t> parse_memory_size(const std::string& text) {
    constexpr std::pair<std::string_view, double> units[] = {
        {"", 1},     {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
        {"kB", 1e3}, {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};
    if (text.empty() || text[0] < '0' || text[0] > '9') return {};
    const char* const end = text.data() + text.size();
    double number = 0;
    const auto [rest, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
    if (error != std::errc()) return {};
    for (const auto& [name, size] : units) {
        if (name != std::string_view(rest, static_cast<std::size_t>(end - rest))) continue;
        const double bytes = std::floor(number * size);
        if (bytes < 1 || bytes >= 0x1p63 || (name.empty() && bytes != number)) return {};
        return static_cast<std::uint64_t>(bytes);
    }
    return {};
}

void add_vram_limit_option(CLI::App& command, std::uint64_t& limit, const std::string& help) {
    command
        .add_option_function<std::string>(
            "--vram-limit", [&limit](const std::string& text) { limit = *parse_memory_size(text); }, help)
        ->type_name("SIZE")
        ->check(CLI::Validator(
            [](std::string& text) {
                return parse_memory_size(text)
                           ? std::string()
                           : "expected a size such as 16GiB, 24GB, 15.5GiB, 800MiB or a number of "
                             "bytes, found \"" +
                                 text + "\"";
            },
            ""));
}

}  // namespace gg::runner
