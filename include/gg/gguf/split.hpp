// Models published as several files. Part n of N is called PREFIX-0000n-of-0000N.gguf, counted from 1, and
// says in its metadata split.no (from 0), split.count (N) and split.tensors.count (tensors of all parts
// together). The first part carries the model's metadata; every part its own tensors. Source: llama.cpp's
// gguf-split.
#pragma once

#include <filesystem>

#include "gg/gguf/parse.hpp"

namespace gg::gguf {

/// The metadata by which a part knows its place; of an unsplit file, 0 of 1 and its own tensors.
struct SplitInfo {
    std::uint32_t number = 0;
    std::uint32_t count = 1;
    std::uint64_t tensors = 0;
};

/// Reads the split keys of a parsed file. Refuses counts that contradict each other.
inline SplitInfo split_info(const ParsedFile& file, const std::string& name) {
    const auto read = [&](std::string_view key, std::uint64_t absent, std::uint64_t limit) {
        const Value* value = file.find(key);
        if (!value) return absent;
        const auto number = value->as<std::uint64_t>();
        if (!number || *number > limit)
            refuse({.file = name,
                    .field = "key " + std::string(key),
                    .expected = "an integer from 0 to " + std::to_string(limit),
                    .found = value->describe()});
        return *number;
    };
    SplitInfo split{.tensors = file.tensors.size()};
    const std::uint64_t count = read("split.count", 0, 65535);
    if (count == 0) return split;  // how tools that join or requantize mark a file that is no longer split
    split.count = static_cast<std::uint32_t>(count);
    split.number = static_cast<std::uint32_t>(read("split.no", 0, 65535));
    split.tensors = read("split.tensors.count", split.tensors, max_entries);
    if (split.number >= split.count)
        refuse({.file = name,
                .field = "key split.no",
                .expected = "less than split.count, " + std::to_string(split.count),
                .found = std::to_string(split.number)});
    return split;
}

/// "-00002-of-00003.gguf" for number 1 of 3.
inline std::string split_suffix(std::uint32_t number, std::uint32_t count) {
    const auto five_digits = [](std::uint32_t value) {
        const std::string digits = std::to_string(value);
        return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
    };
    std::string suffix(1, '-');
    return suffix.append(five_digits(number + 1)).append("-of-").append(five_digits(count)).append(".gguf");
}

/// The path of another part, given the path of part `split`. Refuses a name that is not its part's.
inline std::filesystem::path split_path(const std::filesystem::path& path, const SplitInfo& split,
                                        std::uint32_t number) {
    const std::string name = path.filename().string();
    const std::string suffix = split_suffix(split.number, split.count);
    if (!name.ends_with(suffix))
        refuse({.file = path.string(),
                .field = "file name",
                .expected = "a name ending in " + suffix + ", as the file says that it is part " +
                            std::to_string(split.number + 1) + " of " + std::to_string(split.count),
                .found = printable(name),
                .next_step = "Give the parts of the model the names under which they were published."});
    return path.parent_path() /
           (name.substr(0, name.size() - suffix.size()) + split_suffix(number, split.count));
}

/// Refuses a part that is not number `number` of the model that `first` begins.
inline void require_part(const ParsedFile& first, const SplitInfo& split, const ParsedFile& part,
                         const std::string& part_name, std::uint32_t number) {
    const auto same = [&part_name](std::string_view key, std::string expected, std::string found) {
        if (expected == found) return;
        refuse({.file = part_name,
                .field = "key " + printable(key),
                .expected = expected + ", as its file name or the first part says",
                .found = found,
                .next_step = "It belongs to another model or was renamed: get all parts of one model."});
    };
    const SplitInfo own = split_info(part, part_name);
    same("split.count", std::to_string(split.count), std::to_string(own.count));
    same("split.no", std::to_string(number), std::to_string(own.number));
    same("split.tensors.count", std::to_string(split.tensors), std::to_string(own.tensors));
    for (const Entry& entry : part.metadata) {
        const Value* value = first.find(entry.key);
        if (!value || entry.key.starts_with("split.")) continue;
        const std::span<const std::byte> a = value->bytes();
        const std::span<const std::byte> b = entry.value.bytes();
        if (value->type() == entry.value.type() && value->element_type() == entry.value.element_type() &&
            std::equal(a.begin(), a.end(), b.begin(), b.end()))
            continue;
        same(entry.key, value->describe(), entry.value.describe() + " (not the same value)");
    }
}

}  // namespace gg::gguf
