// The options that name a model file, and opening it.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "gg/gguf/file.hpp"

namespace gg::runner {

/// -m and --sha256.
struct ModelFileOptions {
    std::string path;
    std::string sha256;  ///< expected sum; empty: not asked for
};

/// Adds -m,--model (required) and --sha256 HEX to a subcommand.
void add_model_file_options(CLI::App& command, ModelFileOptions& options);

/// Adds --sha256 HEX alone, for a command that takes the model otherwise.
void add_sha256_option(CLI::App& command, ModelFileOptions& options);

/// Accepts 64 hexadecimal digits.
std::string check_sha256_text(const std::string& text);

/// The files of a model, of which `path` is the only or the first one by its name.
std::vector<std::filesystem::path> model_paths(const std::filesystem::path& path);

/// Checks the sum if one is expected, then opens the file. Throws gg::Error.
gguf::File open_model_file(const ModelFileOptions& options);

}  // namespace gg::runner
