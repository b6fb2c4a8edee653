// Text on standard output, messages on standard error, and what is read from files and standard input.
#pragma once

#include <cstdint>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "gg/core/bytes_text.hpp"

namespace gg::runner {

/// Whoever reads standard output has closed it: the program ends quietly.
struct OutputClosed : std::exception {};

/// Writes to standard output, unbuffered. Throws OutputClosed, or gg::Error if it cannot be written.
void write_output(std::string_view text);
/// Writes one line of JSON to standard output. Bytes that are not UTF-8 become U+FFFD.
void print_json(const nlohmann::ordered_json& json);

/// "gg: error: MESSAGE" on standard error.
void print_error(std::string_view message);
/// "gg: MESSAGE" on standard error.
void print_note(std::string_view message);

/// All bytes of a file, or of standard input for "-". Throws gg::Error naming the file.
std::string read_input(const std::string& path);

/// Token ids separated by blanks; `source` names the text in messages. Throws gg::Error (invalid_request)
/// naming the position of what is not an id from 0 to vocabulary - 1.
std::vector<std::int32_t> parse_ids(std::string_view text, int vocabulary, const std::string& source);

/// A number with a few decimals: fixed(3.14159, 2) is "3.14".
std::string fixed(double value, int decimals);

}  // namespace gg::runner
