// Files of reference probabilities: what is stored, what is computed from it, and what is refused.
#include "gg/model/reference_file.hpp"

#include <cmath>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "catch.hpp"
#include "gguf/temporary_folder.hpp"

using gg::Divergence;
using gg::ReferenceFile;
using gg::ReferenceText;
using gg::ReferenceWriter;
using gg::Windows;

namespace {

using Logits = std::vector<std::vector<float>>;

constexpr int vocabulary = 300;
const gg::ReferenceModel model{"ab12", "a model"};

/// A text of random tokens, and the logits of a model on it.
struct Text {
    std::vector<std::int32_t> tokens;
    ReferenceText text;
    Logits logits;

    explicit Text(float spread = 4, std::size_t count = 40)
        : tokens(Windows::disjoint(9).span(count)),
          text{Windows::disjoint(9), count, vocabulary, 7, tokens},
          logits(text.rows(), std::vector<float>(vocabulary)) {
        std::mt19937 random(3);
        std::normal_distribution<float> normal(0, spread);
        for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random() % vocabulary);
        for (auto& row : logits)
            for (float& logit : row) logit = normal(random);
    }

    std::int32_t next(std::size_t row) const { return tokens[row]; }
    void write(const std::filesystem::path& path) const {
        ReferenceWriter writer(path, text, model);
        for (std::size_t row = 0; row < logits.size(); ++row)
            writer.add(logits[row], gg::log_sum(logits[row]), next(row));
        writer.commit();
    }
};

/// sum p (log p - log q) by the definition.
double exact_divergence(const std::vector<float>& p, const std::vector<float>& q) {
    const double p_total = gg::log_sum(p), q_total = gg::log_sum(q);
    double kl = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        const double log_p = p[i] - p_total;
        kl += std::exp(log_p) * (log_p - (q[i] - q_total));
    }
    return kl;
}

Divergence compare(ReferenceFile& file, std::size_t row, const std::vector<float>& logits) {
    return file.compare(row, logits, gg::log_sum(logits));
}

std::string read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::filesystem::path& path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

/// The message with which opening is refused; empty if it is not.
std::string refusal(const std::filesystem::path& path, const ReferenceText& text) {
    try {
        ReferenceFile file(path, text);
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::model_load_failed);
        CHECK(error.mismatch().file == path.string());
        return error.what();
    }
    return {};
}

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

}  // namespace

TEST_CASE("a reference compared with itself differs by nothing") {
    gguf_test::TemporaryFolder folder;
    for (const float spread : {0.1f, 1.0f, 4.0f, 20.0f}) {
        const Text t(spread);
        t.write(folder / "reference");
        CHECK(std::filesystem::file_size(folder / "reference") ==
              8 + 6 * 4 + 8 + 8 + model.sha256.size() + 8 + model.name.size() + 4 * t.tokens.size() +
                  t.text.rows() * (12 + 2 * vocabulary));
        ReferenceFile file(folder / "reference", t.text);
        CHECK(file.model().sha256 == model.sha256);
        CHECK(file.model().name == model.name);
        for (std::size_t row = 0; row < t.logits.size(); ++row) {
            const Divergence same = compare(file, row, t.logits[row]);
            REQUIRE(std::fabs(same.kl) < 2e-8);
            REQUIRE(same.same_top);
            REQUIRE(same.reference_logprob ==
                    t.logits[row][static_cast<std::size_t>(t.next(row))] - gg::log_sum(t.logits[row]));
        }
    }
}

TEST_CASE("storage moves a divergence by less than 1e-5") {
    gguf_test::TemporaryFolder folder;
    std::mt19937 random(4);
    for (const float spread : {0.5f, 2.0f, 4.0f, 20.0f})
        for (const float noise : {0.01f, 0.1f, 0.5f}) {
            const Text t(spread);
            t.write(folder / "reference");
            ReferenceFile file(folder / "reference", t.text);
            std::normal_distribution<float> normal(0, noise);
            double mean = 0, worst = 0;
            std::size_t same = 0, same_exactly = 0;
            for (std::size_t row = 0; row < t.logits.size(); ++row) {
                std::vector<float> q = t.logits[row];
                for (float& logit : q) logit += normal(random);
                const Divergence found = compare(file, row, q);
                const double exact = exact_divergence(t.logits[row], q), difference = found.kl - exact;
                mean += difference / static_cast<double>(t.logits.size());
                // It grows with the spread of log p / q, which is about sqrt(2 KL).
                worst = std::max(worst, std::fabs(difference) / std::max(1.0, std::sqrt(exact / 0.01)));
                const auto top = [](const std::vector<float>& x) {
                    return std::max_element(x.begin(), x.end()) - x.begin();
                };
                same += found.same_top;
                same_exactly += top(t.logits[row]) == top(q);
            }
            CAPTURE(spread, noise, mean, worst);
            CHECK(std::fabs(mean) < 1e-6);
            CHECK(worst < 1e-5);
            CHECK(same == same_exactly);
        }
}

TEST_CASE("a reference appears complete or not at all") {
    gguf_test::TemporaryFolder folder;
    const Text t;
    {
        ReferenceWriter writer(folder / "reference", t.text, model);
        writer.add(t.logits[0], gg::log_sum(t.logits[0]), 1);
        CHECK_THROWS_AS(writer.commit(), gg::Error);
    }
    CHECK(std::filesystem::is_empty(folder.path()));
    CHECK_THROWS_AS(ReferenceWriter(folder / "missing" / "reference", t.text, model), gg::Error);
}

TEST_CASE("a reference of another text or other windows is refused, naming the field") {
    gguf_test::TemporaryFolder folder;
    Text t;
    t.write(folder / "reference");
    const auto refused = [&](const ReferenceText& text, std::string_view field, std::string_view expected,
                             std::string_view found) {
        const std::string message = refusal(folder / "reference", text);
        CAPTURE(message);
        CHECK(contains(message, field));
        CHECK(contains(message, "expected " + std::string(expected) + ", found " + std::string(found)));
    };
    CHECK(refusal(folder / "reference", t.text).empty());
    ReferenceText other = t.text;
    other.vocabulary = 301;
    refused(other, "vocabulary", "301", "300");
    other = t.text;
    other.windows.window = 10;
    refused(other, "window", "10", "9");
    other = t.text;
    other.windows.advance = 3;
    refused(other, "advance", "3", "9");
    other = t.text;
    other.windows.skip = 6;
    refused(other, "skip", "6", "5");
    other = t.text;
    other.beginning = -1;
    refused(other, "begins each window", "-1", "7");
    other = t.text;
    other.count = 39;
    refused(other, "windows", "39", "40");
    const std::int32_t old = t.tokens[20];
    t.tokens[20] = (old + 1) % vocabulary;
    refused(t.text, "token number 20", std::to_string(t.tokens[20]), std::to_string(old));
}

TEST_CASE("what is not a whole reference is refused") {
    gguf_test::TemporaryFolder folder;
    const Text t(4, 2);
    t.write(folder / "reference");
    const std::string whole = read(folder / "reference");
    const std::filesystem::path path = folder / "damaged";
    CHECK(contains(refusal(folder / "missing", t.text), "missing"));
    CHECK_FALSE(refusal(folder.path(), t.text).empty());
    // Every byte of the header and the tokens, and then some of each row.
    for (std::size_t size = 0; size < whole.size(); size += size < 300 ? 1 : 97) {
        write(path, std::string_view(whole).substr(0, size));
        CAPTURE(size);
        REQUIRE_FALSE(refusal(path, t.text).empty());
    }
    write(path, whole + "x");
    CHECK(contains(refusal(path, t.text), "file size"));
    write(path, "GGUF" + whole.substr(4));
    CHECK(contains(refusal(path, t.text), "magic"));
    std::string hostile = whole;
    const std::size_t length_at = 8 + 6 * 4 + 8;
    hostile.replace(length_at, 8, std::string(8, '\xff'));
    write(path, hostile);
    CHECK(contains(refusal(path, t.text), "SHA-256"));
}

TEST_CASE("a damaged row is refused when it is read") {
    gguf_test::TemporaryFolder folder;
    const Text t(4, 2);
    t.write(folder / "reference");
    const std::string whole = read(folder / "reference");
    const std::size_t row = whole.size() - t.text.rows() * (12 + 2 * vocabulary);
    const auto refused = [&](std::size_t offset, std::string bytes) {
        std::string damaged = whole;
        damaged.replace(row + offset, bytes.size(), bytes);
        write(folder / "damaged", damaged);
        ReferenceFile file(folder / "damaged", t.text);
        CHECK_THROWS_AS(compare(file, 0, t.logits[0]), gg::Error);
        CHECK_NOTHROW(compare(file, 1, t.logits[1]));
    };
    refused(0, std::string(8, '\xff'));                  // NaN
    refused(0, std::string("\0\0\0\0\0\0\xf0\xff", 8));  // -infinity
    refused(0, std::string("\0\0\0\0\0\0\xf0\x3f", 8));  // 1
    refused(8, std::string("\x2c\x01\0\0", 4));          // an id outside the vocabulary
    refused(8, std::string(4, '\xff'));                  // far outside
    refused(12, std::string(2 * vocabulary, '\xff'));    // no likeliest token
    ReferenceFile file(folder / "reference", t.text);
    CHECK_THROWS_AS(compare(file, t.text.rows(), t.logits[0]), gg::Error);
    CHECK_THROWS_AS(compare(file, 0, std::vector<float>(vocabulary - 1)), gg::Error);
}
