// Reads a model's hyper-parameters from metadata, with the checks that make them safe to compute with: every
// integer positive and bounded, every number finite. Keys are given without the architecture's prefix.
//
// Errors: gg::Error, model_load_failed, naming file, key, expected and found.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>

#include "gg/gguf/file.hpp"

namespace gg {

class Hyperparameters {
  public:
    Hyperparameters(const gguf::File& file, std::string_view architecture)
        : file_(file), prefix_(std::string(architecture) + ".") {}

    const gguf::File& file() const { return file_; }
    std::string key(std::string_view name) const { return prefix_ + std::string(name); }
    bool has(std::string_view name) const { return file_.find(key(name)) != nullptr; }

    /// A required integer from 1 to `limit`.
    int positive(std::string_view name, int limit = 1 << 24) const {
        return bounded(name, file_.get<std::uint64_t>(key(name)), limit);
    }
    /// The same, or `otherwise` if the key is absent.
    int positive_or(std::string_view name, int otherwise, int limit = 1 << 24) const {
        const auto value = file_.get_if<std::uint64_t>(key(name));
        return value ? bounded(name, *value, limit) : otherwise;
    }
    /// A required number from `least` to `most`.
    double number(std::string_view name, double least, double most) const {
        return within(name, file_.get<double>(key(name)), least, most);
    }
    /// The same, or `otherwise` if the key is absent.
    double number_or(std::string_view name, double otherwise, double least, double most) const {
        const auto value = file_.get_if<double>(key(name));
        return value ? within(name, *value, least, most) : otherwise;
    }
    /// A string, or `otherwise` if the key is absent.
    std::string text_or(std::string_view name, std::string_view otherwise) const {
        return std::string(file_.get_if<std::string_view>(key(name)).value_or(otherwise));
    }

    /// Refuses the file on account of a key.
    [[noreturn]] void refuse_key(std::string_view name, std::string expected, std::string found,
                                 std::string next_step = {}) const {
        refuse({.file = file_.name(),
                .field = "key " + key(name),
                .expected = std::move(expected),
                .found = std::move(found),
                .next_step = std::move(next_step)});
    }

    /// A number for messages, as short as it can be.
    static std::string text(double value) {
        char digits[32];
        return std::string(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
    }

  private:
    int bounded(std::string_view name, std::uint64_t value, int limit) const {
        if (value < 1 || value > static_cast<std::uint64_t>(limit))
            refuse_key(name, "an integer from 1 to " + std::to_string(limit), std::to_string(value));
        return static_cast<int>(value);
    }
    double within(std::string_view name, double value, double least, double most) const {
        if (!(value >= least && value <= most))
            refuse_key(name, "a number from " + text(least) + " to " + text(most), text(value));
        return value;
    }

    const gguf::File& file_;
    std::string prefix_;
};

}  // namespace gg
