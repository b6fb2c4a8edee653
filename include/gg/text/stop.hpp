// Ends a stream of text at a stop string, wherever the stream was cut into pieces.
//
// The match that ends first wins; of several that end at the same byte, the one that begins first (the
// longest). This depends on the text alone, not on its pieces, and no byte past the stop is waited for. Bytes
// are held back only while they are the beginning of a stop string. Each stop runs the automaton of Knuth,
// Morris and Pratt: time is linear in text times number of stops.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gg/core/error.hpp"

namespace gg::text {

/// Passes text through until a stop string appears in it. If pieces and stops are whole UTF-8 characters, so
/// is what comes out.
class StopMatcher {
  public:
    /// An empty stop string is refused (invalid_request).
    explicit StopMatcher(std::vector<std::string> stops) {
        for (std::string& stop : stops) {
            if (stop.empty())
                throw Error(ErrorCode::invalid_request,
                            {.field = "stop string", .expected = "at least one character", .found = "none"});
            patterns_.push_back({std::move(stop), {}, 0});
            patterns_.back().borders = borders(patterns_.back().text);
        }
    }

    /// Takes the next piece; gives the text that is now certain to come before any stop. Nothing after a
    /// stop.
    std::string push(std::string_view text) {
        if (stopped()) return {};
        std::size_t held = held_.size();
        held_ += text;
        for (std::size_t end = held + 1; end <= held_.size() && !stopped(); ++end) {
            held = 0;
            for (Pattern& pattern : patterns_) {
                held = std::max(held, pattern.advance(held_[end - 1]));
                if (pattern.matched == pattern.text.size() && pattern.text.size() > stop_.size())
                    stop_ = pattern.text;
            }
            if (stopped()) held_.resize(end - stop_.size());
        }
        if (stopped()) return std::exchange(held_, {});
        std::string out = held_.substr(0, held_.size() - held);
        held_.erase(0, held_.size() - held);
        return out;
    }

    /// Whether a stop string has appeared.
    bool stopped() const { return !stop_.empty(); }

    /// The stop string that appeared; empty if none has.
    const std::string& stop() const { return stop_; }

    /// The text has ended: gives what was held back.
    std::string finish() {
        for (Pattern& pattern : patterns_) pattern.matched = 0;
        return std::exchange(held_, {});
    }

  private:
    struct Pattern {
        std::string text;
        std::vector<std::size_t>
            borders;          // of each beginning of text, the longest proper end that begins text
        std::size_t matched;  // how much of text the stream ends with

        std::size_t advance(char next) {
            if (matched == text.size()) matched = borders[matched];
            while (matched > 0 && text[matched] != next) matched = borders[matched];
            if (text[matched] == next) ++matched;
            return matched;
        }
    };

    static std::vector<std::size_t> borders(std::string_view text) {
        std::vector<std::size_t> result(text.size() + 1, 0);
        for (std::size_t i = 1, length = 0; i < text.size(); ++i) {
            while (length > 0 && text[length] != text[i]) length = result[length];
            if (text[length] == text[i]) ++length;
            result[i + 1] = length;
        }
        return result;
    }

    std::vector<Pattern> patterns_;
    std::string held_;  // the end of the stream, while a stop may begin with it
    std::string stop_;  // the stop that appeared
};

}  // namespace gg::text
