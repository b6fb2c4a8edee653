// Numbers and amounts of memory on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

namespace gg::runner {

/// A validator for numbers from `low` to `high`, which `text` says in words; a NaN is none.
CLI::Validator number_range(double low, double high, const std::string& text);

/// "16GiB", "24GB", "15.5GiB", "800MiB", "17179869184" in bytes; nothing for any other text, for 0 and for
/// what 63 bits do not hold.
std::optional<std::uint64_t> parse_memory_size(const std::string& text);

/// Adds --vram-limit SIZE, which sets `limit`; `help` says what it does.
void add_vram_limit_option(CLI::App& command, std::uint64_t& limit, const std::string& help);

}  // namespace gg::runner
