// TopKRouter against a sort, over all small cases and random large ones.
#include "gg/block/router.hpp"

#include <numeric>
#include <random>

#include "bounded.hpp"

using namespace gg_test;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

struct Choice {
    std::vector<int> expert;
    std::vector<float> weight;
};

Choice choose(const std::vector<float>& logits, int k) {
    Choice choice{std::vector<int>(static_cast<std::size_t>(k), -1),
                  std::vector<float>(static_cast<std::size_t>(k))};
    gg::TopKRouter::select(logits.data(), static_cast<int>(logits.size()), k, choice.expert.data(),
                           choice.weight.data());
    return choice;
}

/// The order: larger logits first, ties by index, not-a-numbers last.
std::vector<int> sorted(const std::vector<float>& logits) {
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
        return x > y || (std::isnan(y) && !std::isnan(x));
    });
    return order;
}

void check(const std::vector<float>& logits, int k) {
    const Choice choice = choose(logits, k);
    std::vector<int> want = sorted(logits);
    want.resize(static_cast<std::size_t>(k));
    REQUIRE(choice.expert == want);
    std::vector<Bounded> terms;
    const auto logit = [&](int rank) {
        return Bounded(logits[static_cast<std::size_t>(want[static_cast<std::size_t>(rank)])]);
    };
    for (int rank = 0; rank < k; ++rank) terms.push_back(exp(logit(rank) - logit(0)));
    const Bounded total = sum(terms, k);
    Agreement agreement;
    for (int rank = 0; rank < k; ++rank)
        agreement.add(choice.weight[static_cast<std::size_t>(rank)],
                      terms[static_cast<std::size_t>(rank)] / total);
    agreement.require(1e-5);
}

}  // namespace

TEST_CASE("the router agrees with a sort for every row of few experts and few values") {
    // All 4^5 rows of five experts: every pattern of ties.
    for (int code = 0; code < 1024; ++code) {
        std::vector<float> logits;
        for (int e = 0, rest = code; e < 5; ++e, rest /= 4)
            logits.push_back(static_cast<float>(rest % 4) - 1.5f);
        for (int k = 1; k <= 5; ++k) check(logits, k);
    }
}

TEST_CASE("the router agrees with a sort for many experts") {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, 3.0f);
    for (int trial = 0; trial < 200; ++trial) {
        std::vector<float> logits;
        for (int e = 0; e < (trial % 2 ? 32 : 128); ++e) logits.push_back(normal(random));
        check(logits, 4);
        check(logits, 1);
    }
}

TEST_CASE("equal logits go to the lower index and share alike") {
    const Choice choice = choose({1.0f, 2.0f, 2.0f, 2.0f, 0.0f}, 2);
    CHECK(choice.expert == std::vector<int>{1, 2});
    CHECK(choice.weight == std::vector<float>{0.5f, 0.5f});
}

TEST_CASE("a NaN is picked only when numbers run out, and never twice") {
    CHECK(choose({not_a_number, 1.0f, not_a_number, 2.0f}, 2).expert == std::vector<int>{3, 1});
    CHECK(choose({not_a_number, -std::numeric_limits<float>::infinity()}, 1).expert == std::vector<int>{1});
    const std::vector<int> all = choose({not_a_number, 1.0f, not_a_number, 2.0f}, 4).expert;
    CHECK(all[0] == 3);
    CHECK(all[1] == 1);
    CHECK(all[2] + all[3] == 2);
    CHECK(all[2] != all[3]);
}

TEST_CASE("large logits do not overflow") {
    const Choice choice = choose({3e38f, -3e38f, 3e38f}, 3);
    CHECK(choice.expert == std::vector<int>{0, 2, 1});
    CHECK(choice.weight == std::vector<float>{0.5f, 0.5f, 0.0f});
}
