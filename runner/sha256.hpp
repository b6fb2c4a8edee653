// SHA-256 of files on disk.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace gg::runner {

/// The sum, in lower-case hexadecimal, of the files' bytes, one after the other. Shows progress. Throws
/// gg::Error naming a file that cannot be read.
std::string sha256(const std::vector<std::filesystem::path>& paths);

}  // namespace gg::runner
