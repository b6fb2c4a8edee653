// The tests of gg-bench-model by name.
#pragma once

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gg::bench {

inline constexpr const char* default_tests =
    "pp512,pp2048,pp8192,pp32768,tg128@0,tg64@8192,tg64@32768,tg64x8,first@100,load,memory";

/// The tokens of the prompts of several sequences that are decoded together.
inline constexpr int short_prompt = 16;

struct ModelTest {
    enum Kind { prompt, decode, decode_many, first, load, memory } kind;
    std::string name;
    int tokens = 0;     ///< of a prompt, or decoded by each sequence
    int depth = 0;      ///< tokens before those
    int sequences = 1;  ///< decoded together
};

/// "pp512", "tg64@8192", "tg64x8", "first@100", "load", "memory"; nothing for any other text.
inline std::optional<ModelTest> model_test(std::string_view name) {
    ModelTest test{ModelTest::prompt, std::string(name)};
    const auto number = [&](int low, int high) -> std::optional<int> {
        int value = 0;
        const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value);
        if (error != std::errc() || value < low || value > high) return {};
        name.remove_prefix(static_cast<std::size_t>(end - name.data()));
        return value;
    };
    constexpr int most = 1 << 24;
    if (name == "load" || name == "memory") {
        test.kind = name == "load" ? ModelTest::load : ModelTest::memory;
        return test;
    }
    constexpr std::string_view first = "first@";
    if (name.starts_with(first)) {
        name.remove_prefix(first.size());
        const auto tokens = number(1, most);
        if (!tokens || !name.empty()) return {};
        test.kind = ModelTest::first;
        test.tokens = *tokens;
        return test;
    }
    const bool is_prompt = name.starts_with("pp");
    if (!is_prompt && !name.starts_with("tg")) return {};
    name.remove_prefix(2);
    const auto tokens = number(1, most);
    if (!tokens) return {};
    test.tokens = *tokens;
    if (is_prompt) return name.empty() ? std::optional(test) : std::nullopt;
    const bool is_many = name.starts_with("x");
    if (!is_many && !name.starts_with("@")) return {};
    name.remove_prefix(1);
    const auto second = is_many ? number(1, 64) : number(0, most);
    if (!second || !name.empty()) return {};
    test.kind = is_many ? ModelTest::decode_many : ModelTest::decode;
    (is_many ? test.sequences : test.depth) = *second;
    if (is_many) test.depth = short_prompt;
    return test;
}

/// Tests separated by commas; nothing if one is unknown, which `unknown` then names.
inline std::optional<std::vector<ModelTest>> model_tests(std::string_view list, std::string& unknown) {
    std::vector<ModelTest> tests;
    while (true) {
        const std::size_t end = std::min(list.find(','), list.size());
        unknown = std::string(list.substr(0, end));
        const auto test = model_test(unknown);
        if (!test) return {};
        tests.push_back(*test);
        if (end == list.size()) return tests;
        list.remove_prefix(end + 1);
    }
}

}  // namespace gg::bench
