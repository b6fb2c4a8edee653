#include "sampling_options.hpp"

#include <string_view>

#include "commands.hpp"
#include "option_values.hpp"

namespace gg::runner {

namespace {

std::string unescape(const std::string& text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\') {
            result += text[i];
            continue;
        }
        constexpr std::string_view names = "nrt\\", values = "\n\r\t\\";
        const std::size_t which = ++i < text.size() ? names.find(text[i]) : names.npos;
        if (which == names.npos)
            throw UsageError("--stop: expected \\n, \\r, \\t or \\\\ after a backslash, found \"" + text +
                             "\"");
        result += values[which];
    }
    if (result.empty()) throw UsageError("--stop: expected at least one character");
    return result;
}

}  // namespace

void add_sampling_options(CLI::App& command, SamplingOptions& options) {
    text::SamplerOptions& sampler = options.sampler;
    constexpr double huge = 1e30;
    const auto add = [&](const char* name, auto& value, const char* text, double high, const char* range,
                         double low = 0) {
        command.add_option(name, value, text)
            ->type_name("X")
            ->check(number_range(low, high, range))
            ->group("Sampling");
    };
    add("--temp", sampler.temperature, "Temperature; 0 always takes the likeliest token", huge, "0 or more");
    add("--top-k", sampler.top_k, "Draw from the K likeliest tokens; 0 is off", 2e9, "0 or more");
    add("--top-p", sampler.top_p, "Draw from the likeliest tokens that together have probability P; 1 is off",
        1, "0 to 1");
    add("--min-p", sampler.min_p, "Draw from tokens at least P times as likely as the likeliest; 0 is off", 1,
        "0 to 1");
    add("--repeat-penalty", sampler.repeat_penalty,
        "Make recent tokens less likely; 1 is off, as it also punishes what a text must repeat", huge,
        "more than 0", 1e-6);
    add("--repeat-window", sampler.repeat_window, "How many recent tokens the penalty looks at", 1e9,
        "0 or more");
    command
        .add_option_function<std::uint64_t>(
            "--seed",
            [&options](std::uint64_t seed) {
                options.sampler.seed = seed;
                options.seeded = true;
            },
            "Same seed, same text; drawn and printed if not given")
        ->type_name("N")
        ->check(number_range(0, 0x1p64, "0 or more"))
        ->group("Sampling");
    command
        .add_option(
            "--stop",
            [&options](const CLI::results_t& texts) {
                options.stops.clear();
                for (const std::string& text : texts) options.stops.push_back(unescape(text));
                return true;
            },
            "End before this text (\\n, \\t, \\r, \\\\ are escapes); may be given several times")
        ->type_name("TEXT")
        ->expected(1)
        ->take_all()
        ->group("Sampling");
}

}  // namespace gg::runner
