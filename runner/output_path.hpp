// The file that a command writes: whether its name may be taken.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>

#include "gg/gguf/file.hpp"

namespace gg::runner {

/// Refuses an output that is there already (unless `force`), or is not a file, or is one of the parts of
/// `input`, a file that is read while the output is written, or nullptr.
inline void require_output(const std::string& path, bool force, const gguf::File* input) {
    const std::filesystem::path out = path;
    std::error_code ignored;
    if (!std::filesystem::exists(out, ignored)) return;
    const auto reject = [&](const char* expected, const char* found, const char* next_step) {
        throw Error(ErrorCode::invalid_request,
                    {.file = path, .expected = expected, .found = found, .next_step = next_step});
    };
    if (input)
        for (const gguf::Part& part : input->parts())
            if (std::filesystem::equivalent(part.path, out, ignored))
                reject("another file than the input", "the input itself", "Give the output another name.");
    if (!std::filesystem::is_regular_file(out, ignored)) reject("the name of a new file", "no file", "");
    if (!force) reject("the name of a new file", "a file that is there already", "Overwrite it by --force.");
}

}  // namespace gg::runner
