#include "gg/text/stop.hpp"

#include <random>
#include <string>
#include <vector>

#include "catch.hpp"

using gg::text::StopMatcher;

namespace {

struct Result {
    std::string text;
    bool stopped;
    bool operator==(const Result&) const = default;
};

/// The definition: the first end at which the text ends with a stop; the longest such stop is cut off.
Result brute_force(const std::vector<std::string>& stops, const std::string& text) {
    for (std::size_t end = 1; end <= text.size(); ++end) {
        std::size_t longest = 0;
        for (const std::string& stop : stops)
            if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0)
                longest = std::max(longest, stop.size());
        if (longest > 0) return {text.substr(0, end - longest), true};
    }
    return {text, false};
}

/// How much of the text's end must be held back: the longest end that is the beginning of a stop.
std::size_t held(const std::vector<std::string>& stops, const std::string& text) {
    for (std::size_t length = text.size(); length > 0; --length)
        for (const std::string& stop : stops)
            if (length < stop.size() && text.compare(text.size() - length, length, stop, 0, length) == 0)
                return length;
    return 0;
}

}  // namespace

TEST_CASE("text without a stop passes through at once") {
    StopMatcher none({});
    CHECK(none.push("any text") == "any text");
    CHECK_FALSE(none.stopped());
    CHECK(none.finish().empty());

    StopMatcher matcher({"END"});
    CHECK(matcher.push("the text") == "the text");
    CHECK(matcher.push("") == "");
    CHECK_FALSE(matcher.stopped());
}

TEST_CASE("a stop is found across pieces, and only its beginning is held back") {
    StopMatcher matcher({"\n\nUser:"});
    CHECK(matcher.push("Hello\n") == "Hello");
    CHECK(matcher.push("\n") == "");
    CHECK(matcher.push("\n") == "\n");  // three newlines: the first cannot belong to the stop
    CHECK(matcher.push("Us") == "");
    CHECK(matcher.push("er: more") == "");
    CHECK(matcher.stopped());
    CHECK(matcher.stop() == "\n\nUser:");
    CHECK(matcher.push("nothing after it") == "");
    CHECK(matcher.finish() == "");
}

TEST_CASE("what was held back comes out at the end") {
    StopMatcher matcher({"stop"});
    CHECK(matcher.push("a sto") == "a ");
    CHECK(matcher.finish() == "sto");
    CHECK(matcher.finish() == "");
    CHECK(matcher.push("p") == "p");  // a new text begins after finish
    CHECK_FALSE(matcher.stopped());
}

TEST_CASE("the match that ends first wins, the longest of those") {
    StopMatcher a({"abcd", "bc"});
    CHECK(a.push("xabcd") == "xa");
    CHECK(a.stop() == "bc");
    StopMatcher b({"c", "abc", "bc"});
    CHECK(b.push("xabc") == "x");
    CHECK(b.stop() == "abc");
    StopMatcher c({"late", "early"});
    CHECK(c.push("early and late") == "");
    CHECK(c.stop() == "early");
}

TEST_CASE("a copy goes on by itself") {
    StopMatcher first({"ab"});
    CHECK(first.push("xa") == "x");
    StopMatcher second = first;
    CHECK(first.push("b") == "");
    CHECK(first.stopped());
    CHECK_FALSE(second.stopped());
    CHECK(second.push("c") == "ac");
}

TEST_CASE("an empty stop is refused") {
    CHECK_THROWS_AS(StopMatcher({"a", ""}), gg::Error);
}

TEST_CASE("whole characters in, whole characters out") {
    // The stop and the text begin with the same two bytes of a three-byte character.
    StopMatcher matcher({"\xE2\x80\xA6"});
    CHECK(matcher.push("a\xE2\x80\x94") == "a\xE2\x80\x94");
    CHECK(matcher.push("b\xE2\x80\xA6") == "b");
    CHECK(matcher.stopped());
}

TEST_CASE("random stops on random text equal the definition, however the text is cut") {
    std::mt19937 random(11);
    const auto below = [&](std::size_t n) { return random() % n; };
    const auto text = [&](std::size_t most, std::size_t least) {
        std::string s;
        for (std::size_t n = least + below(most - least + 1); n > 0; --n)
            s += static_cast<char>('a' + below(2));
        return s;
    };
    int stopped = 0;
    for (int round = 0; round < 30000; ++round) {
        std::vector<std::string> stops(below(4));
        for (std::string& stop : stops) stop = text(8, 2);
        const std::string whole = text(40, 0);
        const Result expected = brute_force(stops, whole);
        StopMatcher matcher(stops);
        std::string out;
        for (std::size_t at = 0; at < whole.size();) {
            const std::size_t piece = std::min(whole.size() - at, below(6));
            out += matcher.push(whole.substr(at, piece));
            at += piece;
            if (!matcher.stopped()) {
                const std::string seen = whole.substr(0, at);
                REQUIRE(out == seen.substr(0, at - held(stops, seen)));
            }
        }
        out += matcher.finish();
        REQUIRE(Result{out, matcher.stopped()} == expected);
        stopped += matcher.stopped();
    }
    CHECK(stopped > 3000);
    CHECK(stopped < 29000);
}
