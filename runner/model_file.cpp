#include "model_file.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "gg/gguf/split.hpp"
#include "sha256.hpp"

namespace gg::runner {

std::string check_sha256_text(const std::string& text) {
    const bool good = text.size() == 64 && std::all_of(text.begin(), text.end(),
                                                       [](unsigned char c) { return std::isxdigit(c) != 0; });
    return good ? std::string() : "expected 64 hexadecimal digits, found \"" + text + "\"";
}

void add_model_file_options(CLI::App& command, ModelFileOptions& options) {
    command
        .add_option("-m,--model", options.path, "The model: a GGUF file, or the first part of a split one")
        ->required();
    add_sha256_option(command, options);
}

void add_sha256_option(CLI::App& command, ModelFileOptions& options) {
    command
        .add_option(
            "--sha256", options.sha256,
            "Refuse the model unless this is its SHA-256 (of a split model: of all parts, one after the "
            "other)")
        ->type_name("HEX")
        ->check(check_sha256_text);
}

std::vector<std::filesystem::path> model_paths(const std::filesystem::path& path) {
    // Only the name is looked at: nothing in a file is trusted before its sum is checked.
    const std::string name = path.filename().string();
    constexpr std::size_t suffix = std::string_view("-00001-of-00003.gguf").size();
    gguf::SplitInfo split;
    if (name.size() > suffix) {
        const char* digits = name.data() + name.size() - 10;
        std::from_chars(digits, digits + 5, split.count);
    }
    if (split.count < 2 || !name.ends_with(gguf::split_suffix(0, split.count))) return {path};
    std::vector<std::filesystem::path> paths;
    for (std::uint32_t number = 0; number < split.count; ++number)
        paths.push_back(gguf::split_path(path, split, number));
    return paths;
}

gguf::File open_model_file(const ModelFileOptions& options) {
    if (!options.sha256.empty()) {
        std::string expected = options.sha256;
        for (char& c : expected) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        const std::string found = sha256(model_paths(options.path));
        if (found != expected)
            refuse({.file = options.path,
                    .field = "SHA-256",
                    .expected = expected,
                    .found = found,
                    .next_step = "The file is damaged or another one: get it again."});
    }
    return gguf::File::open(options.path);
}

}  // namespace gg::runner
