// From logits to a token id. The definition is independent of any order of evaluation, so that a parallel
// twin on a device picks the same id for the same logits, options and history.
//
// At step s (the number of ids drawn since reset), with l[i] the logit of id i:
//   1. Repetition penalty: for every id among the last repeat_window accepted ones, once, l[i] becomes
//      l[i] / penalty if positive, else l[i] * penalty. Ids that are not sampleable are out: l[i] =
//      -infinity.
//   2. The order of ids is by descending l, ties by ascending id; L is the largest l.
//      Temperature 0: the answer is the first id in the order.
//   3. z[i] = (l[i] - L) / temperature; the first id's z is 0.
//   4. Top-k keeps the first k ids of the order (0: all).
//   5. Top-p (below 1) keeps the shortest beginning of the order, at least one id, whose mass reaches
//      floor(top_p * M), where an id's mass is floor(exp(z[i]) * 2^40), an integer, and M the sum of the
//      masses of the ids that top-k kept. Integers add up alike in any order.
//   6. Min-p (above 0) keeps the ids with exp(z[i]) >= min_p; the largest probability has exp(0) = 1.
//   7. The answer is the kept id with the largest z[i] + g[i], ties to the lower id. g[i] is Gumbel noise, a
//      function of (seed, i, s) alone: the Gumbel-max trick draws id i with probability softmax(z)[i].
//
// exp, log and every operation on one id are in gg/text/logit.hpp and random.hpp, shared with the device.
// Errors: invalid_request for options and ids out of range, internal for logits that no model should give.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/text/logit.hpp"
#include "gg/text/random.hpp"

namespace gg::text {

/// How the next token is chosen. The defaults suit raw text.
struct SamplerOptions {
    float temperature = 0.8F;     ///< 0 always takes the likeliest token
    int top_k = 40;               ///< keep the k likeliest; 0 is off
    float top_p = 0.95F;          ///< keep the likeliest that together reach this probability; 1 is off
    float min_p = 0.05F;          ///< keep those at least this likely relative to the likeliest; 0 is off
    float repeat_penalty = 1.0F;  ///< makes recent tokens less likely; 1 is off
    int repeat_window = 64;       ///< how many recent tokens the penalty looks at
    std::uint64_t seed = 0;
};

/// Draws token ids from logits. Not thread-safe; its result depends on nothing but what it is given.
class Sampler {
  public:
    /// `vocabulary` is the number of logits. `sampleable`, if given, says which ids may be drawn at all.
    Sampler(SamplerOptions options, int vocabulary, const std::function<bool(std::int32_t)>& sampleable = {})
        : options_(options), vocabulary_(vocabulary) {
        check_options();
        logits_.resize(static_cast<std::size_t>(vocabulary));
        recent_.resize(
            static_cast<std::size_t>(options_.repeat_penalty == 1.0F ? 0 : options_.repeat_window));
        for (std::int32_t id = 0; sampleable && id < vocabulary; ++id)
            if (!sampleable(id)) blocked_.push_back(id);
    }

    /// Adds a token of the text, from the prompt or drawn, to the history that the repetition penalty looks
    /// at.
    void accept(std::int32_t token) {
        if (token < 0 || token >= vocabulary_)
            throw Error(ErrorCode::invalid_request, {.field = "token id",
                                                     .expected = "0 to " + std::to_string(vocabulary_ - 1),
                                                     .found = std::to_string(token)});
        if (recent_.empty()) return;
        recent_[accepted_ % recent_.size()] = token;
        ++accepted_;
    }

    /// Draws the next id from one row of logits, [vocabulary].
    std::int32_t sample(std::span<const float> logits) {
        if (logits.size() != logits_.size())
            throw Error(ErrorCode::internal, {.field = "logits",
                                              .expected = std::to_string(vocabulary_) + " values",
                                              .found = std::to_string(logits.size())});
        prepare(logits);
        const bool greedy = options_.temperature == 0.0F;
        const std::size_t limit = static_cast<std::size_t>(options_.top_k);
        collect(greedy ? 1 : limit == 0 ? logits_.size() : std::min(limit, logits_.size()));
        const unsigned long long first = *std::max_element(kept_.begin(), kept_.end());
        largest_ = key_logit(first);
        if (largest_ == -infinity()) throw bad_logits("every logit that may be drawn is -infinity");
        if (!greedy) {
            if (options_.top_p < 1.0F) keep_top_p();
            if (options_.min_p > 0.0F)
                std::erase_if(kept_, [&](auto key) { return gg::exp(scaled(key)) < options_.min_p; });
        }
        const std::int32_t id = static_cast<std::int32_t>(greedy ? key_id(first) : draw());
        ++step_;
        return id;
    }

    /// Forgets the history and starts again at step 0 of the seed.
    void reset() { accepted_ = step_ = 0; }

    const SamplerOptions& options() const { return options_; }
    /// Memory that it holds, bytes.
    std::uint64_t bytes() const {
        return sizeof(std::int32_t) * (blocked_.capacity() + recent_.capacity()) +
               sizeof(float) * logits_.capacity() + sizeof(unsigned long long) * kept_.capacity();
    }

  private:
    void check_options() const {
        auto check = [](bool good, const char* field, const char* expected, auto found) {
            if (!good)
                throw Error(ErrorCode::invalid_request,
                            {.field = field, .expected = expected, .found = std::to_string(found)});
        };
        auto finite = [](float value) { return std::isfinite(value); };
        const SamplerOptions& o = options_;
        check(vocabulary_ > 0, "vocabulary", "at least 1", vocabulary_);
        check(finite(o.temperature) && o.temperature >= 0, "temperature", "0 or more", o.temperature);
        check(o.top_k >= 0, "top-k", "0 or more", o.top_k);
        check(o.top_p >= 0 && o.top_p <= 1, "top-p", "0 to 1", o.top_p);
        check(o.min_p >= 0 && o.min_p <= 1, "min-p", "0 to 1", o.min_p);
        check(finite(o.repeat_penalty) && o.repeat_penalty > 0, "repeat-penalty", "more than 0",
              o.repeat_penalty);
        check(o.repeat_window >= 0, "repeat-window", "0 or more", o.repeat_window);
    }

    Error bad_logits(const std::string& what) const {
        return Error(ErrorCode::internal,
                     {.field = "logits of step " + std::to_string(step_), .found = what});
    }

    // Steps 1: logits_ becomes what may be drawn, penalised.
    void prepare(std::span<const float> logits) {
        std::copy(logits.begin(), logits.end(), logits_.begin());
        for (std::size_t i = 0; i < std::min(accepted_, recent_.size()); ++i) {
            const auto id = static_cast<std::size_t>(recent_[i]);
            logits_[id] = penalize(logits[id], options_.repeat_penalty);
        }
        for (const std::int32_t id : blocked_) logits_[static_cast<std::size_t>(id)] = -infinity();
    }

    // Step 4: kept_ becomes the keys of the first `limit` ids of the order, themselves in no order. One pass;
    // the buffer is cut whenever it is full, and from then on takes only what could still be among the first.
    void collect(std::size_t limit) {
        const std::size_t capacity = 2 * limit + 1024;
        unsigned long long last = 0;
        float floor = -infinity();
        auto cut = [&] {
            const auto end = kept_.begin() + static_cast<std::ptrdiff_t>(limit);
            std::nth_element(kept_.begin(), end - 1, kept_.end(), std::greater<>());
            last = *(end - 1);
            floor = key_logit(last);
            kept_.resize(limit);
        };
        kept_.clear();
        for (std::size_t id = 0; id < logits_.size(); ++id) {
            const float logit = logits_[id];
            if (logit < floor) continue;  // no NaN is
            if (logit != logit) throw bad_logits("NaN for id " + std::to_string(id));
            const unsigned long long key = order_key(logit, static_cast<unsigned>(id));
            if (key <= last) continue;
            kept_.push_back(key);
            if (kept_.size() == capacity) cut();
        }
        if (kept_.size() > limit) cut();
    }

    // Step 5, by halving: the ids before the middle of the undecided range either reach the target or are all
    // kept, so each round looks at half as many.
    void keep_top_p() {
        const auto sum = [&](std::size_t from, std::size_t to) {
            unsigned long long mass = 0;
            for (; from < to; ++from) mass += probability_mass(scaled(kept_[from]));
            return mass;
        };
        unsigned long long target = target_mass(options_.top_p, sum(0, kept_.size()));
        std::size_t low = 0,
                    high = kept_.size();  // the first `low` ids are kept, the first `high` are enough
        while (high - low > 1) {
            const std::size_t middle = low + (high - low) / 2;
            const auto at = [&](std::size_t i) { return kept_.begin() + static_cast<std::ptrdiff_t>(i); };
            std::nth_element(at(low), at(middle), at(high), std::greater<>());
            const unsigned long long mass = sum(low, middle);
            if (mass >= target) {
                high = middle;
            } else {
                target -= mass;
                low = middle;
            }
        }
        kept_.resize(high);
    }

    // Step 7.
    unsigned draw() const {
        unsigned long long best = 0;
        for (const unsigned long long key : kept_) {
            const unsigned id = key_id(key);
            best = std::max(best, order_key(scaled(key) + gumbel_noise(options_.seed, id, step_), id));
        }
        return key_id(best);
    }

    float scaled(unsigned long long key) const {
        return scale_logit(key_logit(key), largest_, options_.temperature);
    }

    SamplerOptions options_;
    int vocabulary_;
    std::vector<std::int32_t> blocked_;     // ids that are never drawn
    std::vector<std::int32_t> recent_;      // ring of the last accepted ids
    std::size_t accepted_ = 0;              // ids accepted since reset, unless the penalty is off
    std::uint64_t step_ = 0;                // ids drawn since reset
    std::vector<float> logits_;             // this step's logits after step 1
    std::vector<unsigned long long> kept_;  // order_key of each id still in
    float largest_ = 0.0F;
};

}  // namespace gg::text
