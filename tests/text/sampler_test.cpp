#include "gg/text/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "catch.hpp"

using gg::text::Sampler;
using gg::text::SamplerOptions;

namespace {

using Row = std::vector<float>;
constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// Options that change nothing: a plain draw from the softmax.
SamplerOptions plain(std::uint64_t seed = 0) {
    return {.temperature = 1,
            .top_k = 0,
            .top_p = 1,
            .min_p = 0,
            .repeat_penalty = 1,
            .repeat_window = 64,
            .seed = seed};
}

/// The header's definition, step by step, with full sorts.
std::int32_t brute_force(const SamplerOptions& o, std::vector<float> l,
                         const std::vector<std::int32_t>& history, const std::vector<bool>& sampleable,
                         std::uint64_t step) {
    if (o.repeat_penalty != 1) {
        std::vector<bool> seen(l.size());
        const std::size_t window = std::min(history.size(), static_cast<std::size_t>(o.repeat_window));
        for (std::size_t i = history.size() - window; i < history.size(); ++i) {
            const auto id = static_cast<std::size_t>(history[i]);
            if (!seen[id]) l[id] = l[id] > 0 ? l[id] / o.repeat_penalty : l[id] * o.repeat_penalty;
            seen[id] = true;
        }
    }
    for (std::size_t i = 0; i < l.size(); ++i)
        if (!sampleable[i]) l[i] = -inf;
    std::vector<std::size_t> order(l.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return l[a] > l[b]; });
    if (o.temperature == 0) return static_cast<std::int32_t>(order[0]);
    if (o.top_k > 0 && order.size() > static_cast<std::size_t>(o.top_k))
        order.resize(static_cast<std::size_t>(o.top_k));
    const float largest = l[order[0]];
    std::vector<float> z(l.size());
    for (const std::size_t i : order) z[i] = l[i] == largest ? 0 : (l[i] - largest) / o.temperature;
    if (o.top_p < 1) {
        std::vector<std::uint64_t> mass;
        for (const std::size_t i : order)
            mass.push_back(
                static_cast<std::uint64_t>(std::floor(std::ldexp(static_cast<double>(gg::exp(z[i])), 40))));
        const std::uint64_t all = std::accumulate(mass.begin(), mass.end(), std::uint64_t{0});
        const auto target =
            static_cast<std::uint64_t>(static_cast<double>(o.top_p) * static_cast<double>(all));
        std::size_t keep = 0;
        std::uint64_t sum = 0;
        do sum += mass[keep++];
        while (sum < target);
        order.resize(keep);
    }
    std::int32_t best = -1;
    float best_value = 0;
    for (const std::size_t i : order) {
        if (o.min_p > 0 && gg::exp(z[i]) < o.min_p) continue;
        const float value = z[i] + gg::text::gumbel_noise(o.seed, static_cast<unsigned>(i), step);
        const auto id = static_cast<std::int32_t>(i);
        if (best < 0 || value > best_value || (value == best_value && id < best)) {
            best = id;
            best_value = value;
        }
    }
    return best;
}

/// Pearson's statistic of `draws` draws from logits against probabilities; an id of probability 0 must not
/// occur.
double chi_square(Sampler& sampler, const std::vector<float>& logits, const std::vector<double>& probability,
                  int draws) {
    std::vector<int> count(logits.size());
    for (int i = 0; i < draws; ++i) ++count[static_cast<std::size_t>(sampler.sample(logits))];
    double statistic = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        const double expected = probability[i] * draws;
        if (expected == 0)
            REQUIRE(count[i] == 0);
        else
            statistic += (count[i] - expected) * (count[i] - expected) / expected;
    }
    return statistic;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
    std::vector<double> p;
    for (const float l : logits) p.push_back(std::exp(l / temperature));
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
    return p;
}

std::vector<int> support(SamplerOptions options, const std::vector<float>& logits, int draws = 4000) {
    Sampler sampler(options, static_cast<int>(logits.size()));
    std::vector<int> ids;
    for (int i = 0; i < draws; ++i) ids.push_back(sampler.sample(logits));
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
}

}  // namespace

TEST_CASE("Philox4x32-10 gives the published vectors") {
    const auto words = [](unsigned a, unsigned b, unsigned c, unsigned d, unsigned k0, unsigned k1) {
        const auto r = gg::text::philox({{a, b, c, d}}, k0, k1);
        return std::vector<unsigned>(r.word, r.word + 4);
    };
    CHECK(words(0, 0, 0, 0, 0, 0) == std::vector<unsigned>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    const unsigned f = 0xffffffff;
    CHECK(words(f, f, f, f, f, f) == std::vector<unsigned>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    CHECK(words(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0) ==
          std::vector<unsigned>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("Gumbel noise is -log(-log(1 - w)) over the whole range of w") {
    std::mt19937_64 random(1);
    for (int i = 0; i < 200000; ++i) {
        // Every magnitude of w down to 2^-63, so that the upper tail is looked at closely.
        const std::uint64_t bits = (random() | 1U << 31) >> random() % 64;
        const double w = std::ldexp(static_cast<double>(bits | 1), -64);
        const double expected = -std::log(-std::log1p(-w));
        const double found = gg::text::gumbel(bits);
        // Above w = 0.99 the rounding of 1 - w shows: those values are below -1.5 and never win.
        const double tolerance = w > 0.99 ? 1e-1 : 4e-6 * std::max(1.0, std::fabs(expected));
        if (w < 1 - 0x1p-20) REQUIRE(found == Approx(expected).margin(tolerance).epsilon(0));
    }
    CHECK(gg::text::gumbel(0) == Approx(64 * std::log(2.0)));
    CHECK(gg::text::gumbel(~0ULL) == Approx(-std::log(24 * std::log(2.0))));
}

TEST_CASE("Gumbel noise has the same bits wherever it is computed") {
    // FNV-1a over the bits; another value means that products were fused into sums, or another definition.
    std::uint64_t hash = 0xcbf29ce484222325;
    for (unsigned id = 0; id < 4096; ++id) {
        const float g = gg::text::gumbel_noise(0x0123456789abcdef, id, id >> 3);
        hash = (hash ^ gg::float_bits(g)) * 0x100000001b3;
    }
    CHECK(hash == 0xc65f73fcc59c608fULL);
}

TEST_CASE("order keys sort by descending logit, then ascending id, and keep both") {
    const std::vector<float> logits = {inf, 3e38F, 1, 1e-45F, 0, -0.0F, -1e-45F, -1, -3e38F, -inf};
    for (std::size_t a = 0; a < logits.size(); ++a)
        for (std::size_t b = 0; b < logits.size(); ++b)
            for (const unsigned id_a : {0U, 1U, 200000U})
                for (const unsigned id_b : {0U, 1U, 200000U}) {
                    const auto key_a = gg::text::order_key(logits[a], id_a),
                               key_b = gg::text::order_key(logits[b], id_b);
                    const bool first = logits[a] > logits[b] || (logits[a] == logits[b] && id_a < id_b);
                    REQUIRE((key_a > key_b) == first);
                    REQUIRE(gg::text::key_id(key_a) == id_a);
                    REQUIRE(gg::text::key_logit(key_a) == logits[a]);
                    REQUIRE(key_a != 0);
                }
}

TEST_CASE("the sampler picks what the definition says, in random cases") {
    std::mt19937 random(7);
    const auto uniform = [&](int low, int high) {
        return std::uniform_int_distribution<int>(low, high)(random);
    };
    const auto pick = [&](std::vector<float> values) {
        return values[static_cast<std::size_t>(uniform(0, static_cast<int>(values.size()) - 1))];
    };
    for (int round = 0; round < 6000; ++round) {
        const int vocabulary = round % 20 == 0 ? uniform(1000, 6000) : uniform(1, 40);
        const SamplerOptions options = {.temperature = pick({0, 0.01F, 0.5F, 0.8F, 1, 3, 1e-38F}),
                                        .top_k = static_cast<int>(pick({0, 0, 1, 2, 5, 40, 500, 10000})),
                                        .top_p = pick({1, 1, 0.999F, 0.95F, 0.5F, 0.1F, 1e-6F, 0}),
                                        .min_p = pick({0, 0, 0.05F, 0.5F, 1, 1e-9F}),
                                        .repeat_penalty = pick({1, 1.1F, 2, 0.5F}),
                                        .repeat_window = static_cast<int>(pick({0, 1, 4, 64})),
                                        .seed = static_cast<std::uint64_t>(random()) << 32 | random()};
        std::vector<bool> sampleable(static_cast<std::size_t>(vocabulary), true);
        for (int i = 1; i < vocabulary; ++i) sampleable[static_cast<std::size_t>(i)] = uniform(0, 9) > 0;
        Sampler sampler(options, vocabulary,
                        [&](std::int32_t id) { return bool(sampleable[static_cast<std::size_t>(id)]); });
        std::vector<std::int32_t> history;
        const float grid = pick({0.5F, 0.001F, 1e-6F});  // coarse grids make ties
        for (std::uint64_t step = 0; step < 4; ++step) {
            std::vector<float> logits;
            for (int i = 0; i < vocabulary; ++i) {
                const float l = std::normal_distribution<float>(0, 4)(random);
                logits.push_back(i > 0 && uniform(0, 19) == 0 ? -inf : std::round(l / grid) * grid);
            }
            for (int i = uniform(0, 3); i > 0; --i) {
                history.push_back(uniform(0, vocabulary - 1));
                sampler.accept(history.back());
            }
            REQUIRE(sampler.sample(logits) == brute_force(options, logits, history, sampleable, step));
        }
    }
}

TEST_CASE("draws follow the distribution") {
    const std::vector<float> logits = {0, 1, 2, 3, -1, -2, 1.5F, 0.5F};
    // Thresholds: the 0.9999 quantile of chi-square, 7 degrees of freedom 29.9, 3: 21.1, 2: 18.4.
    SECTION("softmax") {
        for (const std::uint64_t seed : {0ULL, 1ULL, 0xdeadbeefcafef00dULL}) {
            Sampler sampler(plain(seed), 8);
            CHECK(chi_square(sampler, logits, softmax(logits, 1), 100000) < 29.9);
        }
    }
    SECTION("temperature") {
        SamplerOptions options = plain(3);
        options.temperature = 2.5F;
        Sampler sampler(options, 8);
        CHECK(chi_square(sampler, logits, softmax(logits, 2.5), 100000) < 29.9);
    }
    SECTION("top-k renormalises") {
        SamplerOptions options = plain(4);
        options.top_k = 4;  // 3, 2, 1.5, 1
        Sampler sampler(options, 8);
        std::vector<double> p = softmax({-1000, 1, 2, 3, -1000, -1000, 1.5F, -1000}, 1);
        for (double& x : p) x = x < 1e-300 ? 0 : x;
        CHECK(chi_square(sampler, logits, p, 100000) < 21.1);
    }
    SECTION("large vocabulary of equal logits: no id is favoured, first and last tenth alike") {
        const int vocabulary = 50000, draws = 800;
        const std::vector<float> equal(vocabulary, 1.25F);
        Sampler sampler(plain(5), vocabulary);
        std::vector<int> tenth(10);
        for (int i = 0; i < draws; ++i)
            ++tenth[static_cast<std::size_t>(sampler.sample(equal) / (vocabulary / 10))];
        double statistic = 0;
        for (const int n : tenth) statistic += (n - draws / 10.0) * (n - draws / 10.0) / (draws / 10.0);
        CHECK(statistic < 33.7);  // 9 degrees of freedom
    }
    SECTION("successive draws are independent") {
        // Pairs of a fair coin: four cells, 3 degrees of freedom.
        Sampler sampler(plain(6), 2);
        const std::vector<float> coin = {0, 0};
        std::vector<int> pairs(4);
        for (int i = 0; i < 40000; ++i) {
            const int first = sampler.sample(coin), second = sampler.sample(coin);
            ++pairs[static_cast<std::size_t>(2 * first + second)];
        }
        double statistic = 0;
        for (const int n : pairs) statistic += (n - 10000.0) * (n - 10000.0) / 10000;
        CHECK(statistic < 21.1);
    }
}

TEST_CASE("each option keeps the ids it should") {
    // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625, by powers of two.
    const float u = std::log(2.0F);
    const std::vector<float> logits = {-4 * u, -1 * u, -3 * u, -2 * u, -4 * u};
    using Ids = std::vector<int>;
    SamplerOptions o = plain(9);
    CHECK(support(o, logits) == Ids{0, 1, 2, 3, 4});
    SECTION("top-k") {
        o.top_k = 1;
        CHECK(support(o, logits) == Ids{1});
        o.top_k = 4;
        CHECK(support(o, logits) == Ids{0, 1, 2, 3});  // 0 and 4 tie: the lower id stays
        o.top_k = 1000;
        CHECK(support(o, logits) == Ids{0, 1, 2, 3, 4});
    }
    SECTION("top-p") {
        o.top_p = 0;
        CHECK(support(o, logits) == Ids{1});
        o.top_p = 0.49F;
        CHECK(support(o, logits) == Ids{1});
        o.top_p = 0.51F;
        CHECK(support(o, logits) == Ids{1, 3});
        o.top_p = 0.93F;
        CHECK(support(o, logits) == Ids{0, 1, 2, 3});
        o.top_p = 0.95F;
        CHECK(support(o, logits) == Ids{0, 1, 2, 3, 4});
    }
    SECTION("top-p counts what top-k left") {
        o.top_k = 2;  // 2/3 and 1/3
        o.top_p = 0.6F;
        CHECK(support(o, logits) == Ids{1});
        o.top_p = 0.7F;
        CHECK(support(o, logits) == Ids{1, 3});
    }
    SECTION("min-p") {
        o.min_p = 1;
        CHECK(support(o, logits) == Ids{1});
        o.min_p = 0.24F;
        CHECK(support(o, logits) == Ids{1, 2, 3});
        o.min_p = 0.26F;
        CHECK(support(o, logits) == Ids{1, 3});
    }
    SECTION("a tiny temperature is the likeliest token, ties drawn evenly") {
        o.temperature = 1e-38F;
        CHECK(support(o, logits) == Ids{1});
        CHECK(support(o, {5, 7, 7, 1}) == Ids{1, 2});
    }
    SECTION("greedy takes the lowest id of a tie") {
        o.temperature = 0;
        CHECK(support(o, {5, 7, 7, 1}, 3) == Ids{1});
        CHECK(support(o, {-0.0F, 0.0F}, 3) == Ids{0});
    }
    SECTION("-infinity is never drawn, +infinity always") {
        CHECK(support(o, {0, -inf, 0}) == Ids{0, 2});
        CHECK(support(o, {0, inf, 5, inf}) == Ids{1, 3});
    }
    SECTION("all equal") {
        CHECK(support(o, {2, 2, 2}) == Ids{0, 1, 2});
        o.top_k = 2;
        CHECK(support(o, {2, 2, 2}) == Ids{0, 1});
    }
}

TEST_CASE("the repetition penalty looks at the last tokens only") {
    SamplerOptions o = plain();
    o.temperature = 0;
    o.repeat_penalty = 2;
    o.repeat_window = 2;
    Sampler sampler(o, 3);
    const std::vector<float> positive = {3, 2, 1}, negative = {-1, -1.5F, -9};
    CHECK(sampler.sample(positive) == 0);
    sampler.accept(0);
    CHECK(sampler.sample(positive) == 1);  // 3 / 2 < 2
    CHECK(sampler.sample(negative) == 1);  // -1 * 2 < -1.5
    sampler.accept(0);                     // twice in the window: penalised once
    CHECK(sampler.sample(Row{3, 1.4F, 1}) == 0);
    sampler.accept(2);
    sampler.accept(2);
    CHECK(sampler.sample(positive) == 0);  // 0 has left the window
    sampler.accept(0);
    sampler.reset();
    CHECK(sampler.sample(positive) == 0);
}

TEST_CASE("the same seed draws the same ids, another one others") {
    std::vector<float> logits(1000);
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 17) / 4;
    const auto draw = [&](Sampler& sampler) {
        std::vector<std::int32_t> ids;
        for (int i = 0; i < 50; ++i) ids.push_back(sampler.sample(logits));
        return ids;
    };
    Sampler a(plain(42), 1000), b(plain(42), 1000), c(plain(43), 1000), d(plain(42ULL | 1ULL << 63), 1000);
    const auto first = draw(a);
    CHECK(draw(b) == first);
    CHECK(draw(c) != first);
    CHECK(draw(d) != first);
    CHECK(draw(a) != first);  // later steps
    a.reset();
    CHECK(draw(a) == first);
}

TEST_CASE("bad logits, ids and options are refused") {
    Sampler sampler(plain(), 3, [](std::int32_t id) { return id != 2; });
    CHECK(sampler.sample(Row{0, -inf, not_a_number}) == 0);  // padding is not looked at
    try {
        sampler.sample(Row{0, not_a_number, 0});
        FAIL("a NaN was accepted");
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::internal);
        CHECK(std::string(error.what()).find("step 1") != std::string::npos);
    }
    CHECK_THROWS_AS(sampler.sample(Row{-inf, -inf, 0}), gg::Error);
    CHECK_THROWS_AS(sampler.sample(Row{0, 0}), gg::Error);
    CHECK_THROWS_AS(sampler.accept(3), gg::Error);
    CHECK_THROWS_AS(sampler.accept(-1), gg::Error);

    const auto refused = [](auto change) {
        SamplerOptions options = plain();
        change(options);
        CHECK_THROWS_AS(Sampler(options, 3), gg::Error);
    };
    for (const float bad : {-1.0F, inf, not_a_number}) {
        refused([&](auto& o) { o.temperature = bad; });
        refused([&](auto& o) { o.top_p = bad; });
        refused([&](auto& o) { o.min_p = bad; });
        refused([&](auto& o) { o.repeat_penalty = bad; });
    }
    refused([](auto& o) { o.top_p = 1.01F; });
    refused([](auto& o) { o.min_p = 1.01F; });
    refused([](auto& o) { o.repeat_penalty = 0; });
    refused([](auto& o) { o.top_k = -1; });
    refused([](auto& o) { o.repeat_window = -1; });
    CHECK_THROWS_AS(Sampler(plain(), 0), gg::Error);
}
