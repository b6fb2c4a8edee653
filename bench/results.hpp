// What a bench program has measured: rows, as a table for a reader and as JSON for bench/results.
//
// A row's ceiling is what the machine would give at best, in the row's unit. Its percent is value / ceiling
// for rates (a unit with "/s") and ceiling / value for times. Errors: gg::Error invalid_request, naming the
// file.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gg/core/error.hpp"

namespace gg::bench {

/// One measure repeated: its median, smallest and largest value.
struct Measure {
    double median = 0, low = 0, high = 0;
};
inline Measure measure_of(std::vector<double> values) {
    if (values.empty()) return {};
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    const double median = values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
    return {median, values.front(), values.back()};
}

struct Row {
    std::string model, test;
    Measure value;
    std::string unit;                    ///< "tok/s", "us", "GB/s", ...
    std::optional<double> bytes = {};    ///< that one token, or one run of a kernel, must move
    std::optional<double> ceiling = {};  ///< in `unit`

    std::optional<double> percent() const {
        if (!ceiling || *ceiling <= 0 || value.median <= 0) return {};
        const bool rate = unit.find("/s") != unit.npos;
        return 100 * (rate ? value.median / *ceiling : *ceiling / value.median);
    }
};

/// What all rows of one run of a program have in common.
struct Origin {
    std::string device, commit, command;
};

namespace detail {

/// Five significant digits, without an exponent.
inline std::string number_text(double value) {
    const int before = value == 0 ? 1 : static_cast<int>(std::floor(std::log10(std::fabs(value)))) + 1;
    char text[400];
    std::snprintf(text, sizeof text, "%.*f", std::clamp(5 - before, 0, 4), value);
    return text;
}

/// The same as a number, so that a file shows no more digits than that.
inline double shortened(double value) {
    return std::stod(number_text(value));
}

inline std::string size_text(double bytes) {
    constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB"};
    int unit = 0;
    for (; bytes >= 1000 && unit < 4; ++unit) bytes /= 1000;
    char text[32];
    std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.3f %s", bytes, units[unit]);
    return text;
}

/// The words of a command, each quoted if a shell needs it.
inline std::string quoted(const std::string& word) {
    constexpr std::string_view plain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,.:/@%";
    if (!word.empty() && word.find_first_not_of(plain) == word.npos) return word;
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return text + "'";
}

inline std::string file_name(const std::string& path) {
    return std::filesystem::path(path).filename().string();
}

}  // namespace detail

/// A Markdown table, columns aligned. `bytes` is the heading of the column of bytes: "bytes/token".
inline std::string table_text(const std::vector<Row>& rows, const std::string& bytes) {
    std::vector<std::vector<std::string>> cells = {
        {"model", "test", "value", "spread", "unit", bytes, "ceiling", "% of ceiling"}};
    for (const Row& row : rows) {
        const auto percent = row.percent();
        const bool one = row.value.low == row.value.high;
        cells.push_back(
            {row.model, row.test, detail::number_text(row.value.median),
             one ? std::string()
                 : detail::number_text(row.value.low) + " to " + detail::number_text(row.value.high),
             row.unit, row.bytes ? detail::size_text(*row.bytes) : std::string(),
             row.ceiling ? detail::number_text(*row.ceiling) : std::string(),
             percent ? detail::number_text(std::round(10 * *percent) / 10) : std::string()});
        std::string& last = cells.back().back();
        if (percent) last.erase(last.find('.') == last.npos ? last.size() : last.find('.') + 2);
    }
    std::vector<std::size_t> widths(cells[0].size(), 0);
    for (const auto& line : cells)
        for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
    const auto is_text = [](std::size_t i) { return i < 2 || i == 4; };
    std::string text;
    for (std::size_t r = 0; r < cells.size(); ++r) {
        for (std::size_t i = 0; i < widths.size(); ++i) {
            const std::string blanks(widths[i] - cells[r][i].size(), ' ');
            text += "| " + (is_text(i) ? cells[r][i] + blanks : blanks + cells[r][i]) + " ";
        }
        text += "|\n";
        if (r > 0) continue;
        for (std::size_t i = 0; i < widths.size(); ++i)
            text += "|" + std::string(widths[i] + 1, '-') + (is_text(i) ? "-" : ":");
        text += "|\n";
    }
    return text;
}

/// The command line as a reader may repeat it: the program and files by name, without `dropped` options and
/// their values, which change nothing in what is measured.
inline std::string command_text(int argc, const char* const* argv,
                                const std::vector<std::string>& dropped = {"--json", "--commit"}) {
    std::string text = detail::file_name(argv[0]);
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto is = [&](const std::string& option) { return word == option; };
        const auto holds = [&](const std::string& option) { return word.starts_with(option + "="); };
        if (std::any_of(dropped.begin(), dropped.end(), holds)) continue;
        if (std::any_of(dropped.begin(), dropped.end(), is)) {
            ++i;
            continue;
        }
        text += " " + detail::quoted(word.find('/') == word.npos ? word : detail::file_name(word));
    }
    return text;
}

/// The commit of a source folder, with "-dirty" behind it if files were changed; empty if git cannot tell.
inline std::string commit_of(const std::string& folder) {
    const std::string command =
        "git -C " + detail::quoted(folder) + " describe --always --dirty --abbrev=40 2>/dev/null";
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return {};
    char text[200] = {};
    const bool read = std::fgets(text, sizeof text, pipe) != nullptr;
    if (::pclose(pipe) != 0 || !read) return {};
    std::string commit = text;
    commit.erase(std::min(commit.find('\n'), commit.size()));
    return commit;
}

/// The commit that a program was built from: the one named by --commit, or that of the source folder. Refuses
/// to write results of which nobody could tell what was measured.
inline std::string require_commit(const std::string& named, const std::string& folder) {
    const std::string commit = named.empty() ? commit_of(folder) : named;
    if (commit.empty())
        throw Error(ErrorCode::invalid_request, {.file = folder,
                                                 .field = "commit",
                                                 .expected = "a git repository",
                                                 .found = "none",
                                                 .next_step = "Name the commit with --commit."});
    return commit;
}

/// Writes rows to a file of results; rows that are there already of the same device, model, test and unit are
/// replaced, all others stay.
inline void write_json(const std::filesystem::path& path, const Origin& origin,
                       const std::vector<Row>& rows) {
    using Json = nlohmann::ordered_json;
    const auto fail = [&](const std::string& expected, const std::string& found) {
        throw Error(ErrorCode::invalid_request,
                    {.file = path.string(), .expected = expected, .found = found, .next_step = {}});
    };
    Json all = Json::array();
    if (std::ifstream in(path); in) {
        all = Json::parse(in, nullptr, false);
        if (!all.is_array()) fail("a JSON list of rows", "something else");
    }
    for (const Row& row : rows) {
        Json json = {{"device", origin.device},   {"commit", origin.commit},
                     {"command", origin.command}, {"model", row.model},
                     {"test", row.test},          {"value", detail::shortened(row.value.median)}};
        if (row.value.low != row.value.high) {
            json["low"] = detail::shortened(row.value.low);
            json["high"] = detail::shortened(row.value.high);
        }
        json["unit"] = row.unit;
        if (row.bytes) json["bytes"] = std::llround(*row.bytes);
        json["ceiling"] = row.ceiling ? Json(detail::shortened(*row.ceiling)) : Json();
        json["percent"] = row.percent() ? Json(std::round(10 * *row.percent()) / 10) : Json();
        const auto same = [&](const Json& other) {
            for (const char* key : {"device", "model", "test", "unit"})
                if (!other.contains(key) || other[key] != json[key]) return false;
            return true;
        };
        const auto found = std::find_if(all.begin(), all.end(), same);
        if (found == all.end())
            all.push_back(std::move(json));
        else
            *found = std::move(json);
    }
    std::ofstream out(path);
    out << all.dump(1, ' ', false, Json::error_handler_t::replace) << "\n";
    if (!out.flush()) fail("a file that can be written", "none");
}

}  // namespace gg::bench
