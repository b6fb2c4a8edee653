// Windows, means with standard errors, quantiles and log-sums, against their definitions.
#include "gg/model/perplexity.hpp"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "catch.hpp"

using gg::BlockMean;
using gg::Estimate;
using gg::Windows;

namespace {

/// How often each token of a text counts, and the fewest tokens that are before one in its window.
struct Coverage {
    std::vector<int> times;
    int fewest_before = std::numeric_limits<int>::max();

    Coverage(const Windows& windows, std::size_t tokens) : times(tokens) {
        for (std::size_t index = 0; index < windows.count(tokens); ++index)
            for (int i = windows.skip; i < windows.window; ++i) {
                ++times.at(windows.begin(index) + static_cast<std::size_t>(i));
                fewest_before = std::min(fewest_before, i);
            }
    }
    int total() const {
        int sum = 0;
        for (const int n : times) sum += n;
        return sum;
    }
};

BlockMean block_mean(const Windows& windows, const std::vector<double>& sums) {
    BlockMean mean(windows);
    for (const double sum : sums) mean.add(sum);
    return mean;
}

}  // namespace

TEST_CASE("disjoint windows count the tokens behind the first half") {
    const Windows windows = Windows::disjoint(512);
    CHECK(windows.counted() == 255);  // as llama.cpp: n_ctx - n_ctx / 2 - 1
    CHECK(windows.count(511) == 0);
    CHECK(windows.count(512) == 1);
    CHECK(windows.count(1023) == 1);
    CHECK(windows.count(1024) == 2);
    CHECK(windows.span(0) == 0);
    CHECK(windows.span(2) == 1024);
    for (const int window : {3, 4, 5, 64, 127}) {
        const Windows any = Windows::disjoint(window);
        const Coverage coverage(any, static_cast<std::size_t>(10 * window + 2));
        CHECK(any.counted() >= 1);
        CHECK(coverage.total() == 10 * any.counted());
        CHECK(*std::max_element(coverage.times.begin(), coverage.times.end()) == 1);
        CHECK(coverage.fewest_before == window / 2 + 1);
    }
}

TEST_CASE("strided windows count every token once, with enough before it") {
    for (const int window : {2, 16, 37})
        for (int stride = 1; stride < window; stride += 5) {
            const Windows windows = Windows::strided(window, stride);
            const std::size_t tokens = 200, count = windows.count(tokens);
            const Coverage coverage(windows, tokens);
            CHECK(coverage.fewest_before == window - stride);
            const std::size_t end = windows.span(count);
            CHECK(end <= tokens);
            CHECK(end + static_cast<std::size_t>(stride) > tokens);
            for (std::size_t i = 0; i < tokens; ++i)
                REQUIRE(coverage.times[i] == (i >= static_cast<std::size_t>(window - stride) && i < end));
        }
}

TEST_CASE("the standard error is that of the means of blocks") {
    // Five windows of two counted tokens each: means 1, 2, 4, 3, 5; their variance 2.5; over five 0.5.
    const Estimate x = block_mean(Windows::disjoint(5), {2, 4, 8, 6, 10}).estimate();
    CHECK(x.mean == Approx(3).epsilon(1e-15));
    CHECK(x.standard_error.value() == Approx(std::sqrt(0.5)).epsilon(1e-14));

    // Windows of 4 every 2: blocks of two windows, the last of one. Sums 6, 14, 5 of 4, 4, 2 tokens.
    const BlockMean strided = block_mean(Windows::strided(4, 2), {2, 4, 8, 6, 5});
    CHECK(strided.tokens() == 10);
    CHECK(strided.mean() == Approx(2.5).epsilon(1e-15));
    const double squares = 4.0 * 4 + 4.0 * 4 + 0;  // S - 2.5 n = -4, 4, 0
    CHECK(strided.estimate().standard_error.value() == Approx(std::sqrt(1.5 * squares) / 10).epsilon(1e-14));

    CHECK_FALSE(block_mean(Windows::disjoint(5), {2}).estimate().standard_error);
    CHECK_FALSE(block_mean(Windows::strided(4, 2), {2, 4}).estimate().standard_error);
    CHECK(block_mean(Windows::disjoint(5), {7, 7, 7}).estimate().standard_error.value() ==
          Approx(0).margin(1e-15));
}

TEST_CASE("the standard error tells how far the mean of correlated tokens strays") {
    // Tokens share their window's difficulty. Over 2000 texts the means spread as the errors say; the
    // variance of tokens alone would give 0.036 in place of 0.15.
    const Windows windows = Windows::disjoint(33);
    std::mt19937 random(5);
    std::normal_distribution<double> normal;
    double sum = 0, squares = 0, promised = 0;
    const int texts = 2000;
    for (int text = 0; text < texts; ++text) {
        BlockMean mean(windows);
        for (int window = 0; window < 50; ++window) {
            const double difficulty = normal(random);
            double total = 0;
            for (int i = 0; i < windows.counted(); ++i) total += difficulty + normal(random);
            mean.add(total);
        }
        const Estimate x = mean.estimate();
        sum += x.mean;
        squares += x.mean * x.mean;
        promised += *x.standard_error * *x.standard_error;
    }
    const double spread = squares / texts - sum / texts * (sum / texts);
    CHECK(promised / texts == Approx(spread).epsilon(0.1));
    CHECK(std::sqrt(spread) == Approx(0.146).epsilon(0.05));
}

TEST_CASE("perplexity carries the error of the mean") {
    const Estimate x = gg::exp(Estimate{2.0, 0.01});
    CHECK(x.mean == Approx(std::exp(2.0)).epsilon(1e-15));
    CHECK(x.standard_error.value() == Approx(std::exp(2.0) * 0.01).epsilon(1e-15));
    CHECK_FALSE(gg::exp(Estimate{2.0, {}}).standard_error);
}

TEST_CASE("quantiles by nearest rank") {
    std::vector<double> hundred;
    for (int i = 0; i < 100; ++i) hundred.push_back((i * 37) % 100 + 1);
    CHECK(gg::quantile(hundred, 0.99) == 99);
    CHECK(gg::quantile(hundred, 0.5) == 50);
    CHECK(gg::quantile(hundred, 1) == 100);
    CHECK(gg::quantile(hundred, 0.001) == 1);
    std::vector<double> one{3};
    CHECK(gg::quantile(one, 0.5) == 3);
    std::vector<double> two{8, 3};
    CHECK(gg::quantile(two, 0.5) == 3);
    CHECK(gg::quantile(two, 0.51) == 8);
}

TEST_CASE("the log of a sum of exponentials") {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    CHECK(gg::log_sum(std::vector<float>{0, 0, 0, 0}) == Approx(std::log(4.0)).epsilon(1e-15));
    CHECK(gg::log_sum(std::vector<float>{3e38f, 3e38f}) == Approx(double{3e38f}).epsilon(1e-15));
    CHECK(gg::log_sum(std::vector<float>{-1000, -1001}) ==
          Approx(-1000 + std::log1p(std::exp(-1.0))).epsilon(1e-15));
    CHECK(gg::log_sum(std::vector<float>{1, -infinity}) == Approx(1).epsilon(1e-15));
    CHECK(std::isnan(gg::log_sum(std::vector<float>{1, infinity})));
    CHECK(std::isnan(gg::log_sum(std::vector<float>{1, std::nanf("")})));
    std::mt19937 random(2);
    std::normal_distribution<float> normal(0, 5);
    std::vector<float> logits(1000);
    long double sum = 0;
    for (float& logit : logits) sum += std::exp(static_cast<long double>(logit = normal(random)));
    CHECK(gg::log_sum(logits) == Approx(static_cast<double>(std::log(sum))).epsilon(1e-14));
}
