// Perplexity of a text: which tokens are scored with which context, and the mean with its standard error.
//
// A window is `window` consecutive tokens of the text, given to an empty session; the next one begins
// `advance` tokens later. Of each window the tokens from number `skip` on count, so each has at least `skip`
// tokens before it. Tokens behind the last whole window do not count.
//
//   disjoint  advance = window, skip = window / 2 + 1: the second half of each window, which are the very
//             tokens that llama.cpp's perplexity tool counts
//   strided   advance = S, skip = window - S: every token but the first window - S counts, once
//
//   nll        = mean of -log p(token | tokens before it in its window), nats
//   perplexity = exp(nll);  standard error = perplexity * standard error of nll (first order)
//
// The losses of neighbouring tokens are correlated, so their variance would promise too small an error. The
// error comes from the variance between blocks instead: a block is the fewest whole windows that the text
// moves on by `window` tokens in. With N counted tokens in B blocks, S_b the sum and n_b the tokens of a
// block:
//
//   standard error = sqrt(B / (B - 1) * sum_b (S_b - n_b mean)^2) / N
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "gg/core/error.hpp"

namespace gg {

/// How a text is cut into windows, and which of their tokens count.
struct Windows {
    int window = 0;   ///< tokens of a window
    int advance = 0;  ///< tokens from the start of a window to the start of the next
    int skip = 0;     ///< tokens at the start of a window that do not count; at least 1

    /// Windows that do not overlap. Needs `window` of 3 or more.
    static Windows disjoint(int window) { return {window, window, window / 2 + 1}; }
    /// Windows that begin every `stride` tokens, 0 < stride < window.
    static Windows strided(int window, int stride) { return {window, stride, window - stride}; }

    /// Tokens that count in each window.
    int counted() const { return window - skip; }
    /// Whole windows in a text.
    std::size_t count(std::size_t tokens) const {
        const auto size = static_cast<std::size_t>(window);
        return tokens < size ? 0 : (tokens - size) / static_cast<std::size_t>(advance) + 1;
    }
    /// The first token of a window.
    std::size_t begin(std::size_t index) const { return index * static_cast<std::size_t>(advance); }
    /// Tokens from the first of the text to the last of `count` windows.
    std::size_t span(std::size_t count) const {
        return count == 0 ? 0 : begin(count - 1) + static_cast<std::size_t>(window);
    }
    /// Windows of a block.
    int block() const { return (window + advance - 1) / advance; }

    bool operator==(const Windows&) const = default;
};

/// A mean and its standard error; none of fewer than two blocks.
struct Estimate {
    double mean = 0;
    std::optional<double> standard_error;
};

/// exp of an estimate, with the error carried to first order.
inline Estimate exp(const Estimate& x) {
    const double mean = std::exp(x.mean);
    return {mean, x.standard_error ? std::optional(mean * *x.standard_error) : std::nullopt};
}

/// The sum of one quantity over the counted tokens of each window so far.
class BlockMean {
  public:
    explicit BlockMean(const Windows& windows) : windows_(windows) {}

    /// Adds a window: its values' sum.
    void add(double sum) { sums_.push_back(sum); }

    std::size_t windows() const { return sums_.size(); }
    std::size_t tokens() const { return sums_.size() * static_cast<std::size_t>(windows_.counted()); }
    double sum() const {
        double sum = 0;
        for (const double value : sums_) sum += value;
        return sum;
    }
    double mean() const { return sum() / static_cast<double>(tokens()); }

    Estimate estimate() const {
        const double mean = this->mean();
        const auto block = static_cast<std::size_t>(windows_.block());
        double squares = 0, blocks = 0;
        for (std::size_t first = 0; first < sums_.size(); first += block, ++blocks) {
            double deviation = 0;
            for (std::size_t i = first; i < std::min(first + block, sums_.size()); ++i)
                deviation += sums_[i] - windows_.counted() * mean;
            squares += deviation * deviation;
        }
        if (blocks < 2) return {mean, std::nullopt};
        return {mean, std::sqrt(blocks / (blocks - 1) * squares) / static_cast<double>(tokens())};
    }

  private:
    Windows windows_;
    std::vector<double> sums_;
};

/// The smallest value that at least `part` of the values do not exceed (nearest rank); reorders them. Needs
/// at least one value and 0 < part <= 1.
inline double quantile(std::vector<double>& values, double part) {
    const auto rank = static_cast<std::ptrdiff_t>(std::ceil(part * static_cast<double>(values.size()))) - 1;
    const auto at = values.begin() + std::max<std::ptrdiff_t>(rank, 0);
    std::nth_element(values.begin(), at, values.end());
    return *at;
}

/// log(sum exp(logit)), in double: log p(i) = logits[i] - log_sum. NaN if a logit is, or is +infinity.
inline double log_sum(std::span<const float> logits) {
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(logit - largest);
    return largest + std::log(sum);
}

}  // namespace gg
