// Merging against its definition: join the pair with the lowest rank, the leftmost first, until there is
// none.
#include <ctime>
#include <map>

#include "text/golden_files.hpp"
#include "text/scripts_text.hpp"

using namespace text_test;

namespace {

/// Vocabularies of three letters whose tokens are made at random of earlier ones, so that a token may be made
/// in several ways and a longer one may come before a shorter one that it contains.
TinyVocabulary random_vocabulary(Random& random) {
    TinyVocabulary vocabulary;
    vocabulary.merges.clear();
    std::vector<std::string> words = {"a", "b", "c"};
    std::map<std::string, int> seen;
    const std::uint64_t count = 3 + random.below(40);
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::string left = random.pick(words), right = random.pick(words);
        if (left.size() + right.size() > 40) continue;
        if (seen[left + right]++ == 0) {
            words.push_back(left + right);
            vocabulary.add(left + right, 1);
        }
        vocabulary.merges.push_back(left + " " + right);
    }
    for (std::size_t i = vocabulary.merges.size(); i > 1; --i)
        if (random.below(2)) std::swap(vocabulary.merges[i - 1], vocabulary.merges[random.below(i)]);
    return vocabulary;
}

std::vector<std::string> defined_merge(const TinyVocabulary& vocabulary, const std::string& text) {
    std::map<std::string, std::size_t> first;
    std::map<std::pair<std::string, std::string>, std::size_t> rank;
    for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
        const std::string& merge = vocabulary.merges[i];
        const std::size_t blank = merge.find(' ');
        const std::string left = merge.substr(0, blank), right = merge.substr(blank + 1);
        rank[{left, right}] = first.emplace(left + right, i).first->second;
    }
    std::vector<std::string> tokens;
    for (const char c : text) tokens.emplace_back(1, c);
    for (;;) {
        std::size_t best = tokens.size(), lowest = vocabulary.merges.size();
        for (std::size_t i = 0; i + 1 < tokens.size(); ++i)
            if (const auto it = rank.find({tokens[i], tokens[i + 1]});
                it != rank.end() && it->second < lowest) {
                lowest = it->second;
                best = i;
            }
        if (best == tokens.size()) return tokens;
        tokens[best] += tokens[best + 1];
        tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
}

}  // namespace

TEST_CASE("merging is as defined, in short words and in long ones") {
    Random random{5};
    for (int round = 0; round < 150; ++round) {
        const TinyVocabulary vocabulary = random_vocabulary(random);
        const Tokenizer tokenizer = vocabulary.tokenizer();
        for (const std::uint64_t size : {random.below(12), 40 + random.below(16), 500 + random.below(700)}) {
            std::string text;
            const std::uint64_t letters = 1 + random.below(3);
            while (text.size() < size) text += static_cast<char>('a' + random.below(letters));
            std::vector<std::string> tokens;
            for (const std::int32_t id : tokenizer.encode(text)) tokens.emplace_back(tokenizer.bytes(id));
            INFO(text);
            CHECK(tokens == defined_merge(vocabulary, text));
        }
    }
}

TEST_CASE("tokens longer than a window are made") {
    // a, aa, aaaa, ... of 1024 letters, and such tokens after a "b", which change where those of the a's
    // begin.
    TinyVocabulary vocabulary;
    vocabulary.merges.clear();
    std::string unit = "a";
    for (; unit.size() < 1024; unit += unit) {
        vocabulary.add(unit + unit, 1);
        vocabulary.merges.push_back(unit + " " + unit);
        if (unit.size() > 64) continue;
        vocabulary.add("b" + unit, 1);
        vocabulary.merges.push_back("b " + unit);
    }
    const Tokenizer tokenizer = vocabulary.tokenizer();
    for (const std::string& text : {std::string(2600, 'a'), "b" + std::string(2200, 'a'),
                                    std::string(1500, 'a') + "b" + std::string(1100, 'a')}) {
        std::vector<std::string> tokens;
        for (const std::int32_t id : tokenizer.encode(text)) tokens.emplace_back(tokenizer.bytes(id));
        CHECK(tokens == defined_merge(vocabulary, text));
    }
}

TEST_CASE("a token that merging does not make is not taken as a whole") {
    // "abc" is a token, but "b c" is joined first and nothing joins "a bc".
    TinyVocabulary vocabulary;
    for (const char* token : {"bc", "ab", "abc"}) vocabulary.add(token, 1);
    vocabulary.merges = {"b c", "a b", "ab c"};
    CHECK(vocabulary.tokenizer().encode("abc") == std::vector<std::int32_t>{'a', 265});
    // tiktoken, and so gpt-4o, takes every piece that is a token.
    vocabulary.pre = "gpt-4o";
    CHECK(vocabulary.tokenizer().encode("abc") == std::vector<std::int32_t>{267});
}

TEST_CASE("a word of 1 MB takes time that grows as its length") {
    const auto seconds = [](const std::string& text) {
        double least = 1e9;
        for (int run = 0; run < 3; ++run) {
            const std::clock_t start = std::clock();
            const std::size_t count = gpt2_tokenizer().encode(text).size();
            least = std::min(least, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
            REQUIRE(count > 0);
        }
        return least;
    };
    Random random{3};
    std::string letters;
    while (letters.size() < 1'000'000) letters += static_cast<char>('a' + random.below(26));
    for (const std::string& text :
         {std::string(1'000'000, 'a'), std::string(1'000'000, ' '), std::string(1'000'000, '\n'),
          std::string(1'000'000, '7'), std::string(1'000'000, '-'), letters}) {
        const double tenth = seconds(text.substr(0, 100'000)), whole = seconds(text);
        INFO(text[0] << ": " << tenth << " s and " << whole << " s");
        // 10 if linear, 100 if quadratic; other programs on the machine disturb the clock.
        CHECK(whole < 25 * tenth + 0.01);
    }
}
