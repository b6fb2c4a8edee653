// Random rows, options and histories for the sampler's twin, compared id by id with gg::text::Sampler. A
// Device is whatever runs the stages: threads one by one on the host, or a GPU.
//   Device(vocabulary, stride, options, blocked)    one row each; blocked words, empty for none
//   accept(row, tokens)
//   sample(logits [rows][stride]) -> ids; logits and the workspace's old contents must not matter
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "catch.hpp"
#include "gg/cuda/sampler_host.hpp"
#include "gg/text/sampler.hpp"

namespace sampler_cases {

using gg::text::Sampler;
using gg::text::SamplerOptions;

inline constexpr float inf = std::numeric_limits<float>::infinity();

/// Shapes of a row of logits.
enum Kind {
    flat,
    wide,
    nearly_equal,
    equal,
    few_finite,
    ties,
    zeros,  ///< of both signs
    peaked,
    huge,
    halves,       ///< probabilities that are powers of two
    one_of_many,  ///< two on top, all others alike
    terraces,     ///< few ids on top, ever more on each terrace below
    extremes,
    kinds
};

/// Random numbers, options and logits.
class Source {
  public:
    explicit Source(unsigned seed) : random(seed) {}

    std::mt19937 random;
    int most_top_k = 0;  ///< above 0: options draw from among so many ids at most

    int uniform(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }
    template <class T>
    T pick(std::vector<T> values) {
        return values[static_cast<std::size_t>(uniform(0, static_cast<int>(values.size()) - 1))];
    }
    float normal(float deviation) { return std::normal_distribution<float>(0, deviation)(random); }

    SamplerOptions options(int vocabulary) {
        SamplerOptions o;
        if (uniform(0, 3) > 0)
            o = {.temperature = pick<float>({0, 0.01F, 0.5F, 0.8F, 0.8F, 1, 3, 100, 1e-38F}),
                 .top_k = pick<int>({0, 0, 0, 1, 2, 5, 40, 500, vocabulary / 2, vocabulary - 1, vocabulary,
                                     vocabulary + 1, 1000000}),
                 .top_p = pick<float>({1, 1, 0x1.fffffep-1F, 0.999F, 0.95F, 0.95F, 0.5F, 0.1F, 1e-6F, 0}),
                 .min_p = pick<float>({0, 0, 0.05F, 0.5F, 1, 1e-9F}),
                 .repeat_penalty = pick<float>({1, 1.1F, 2, 0.5F}),
                 .repeat_window = pick<int>({0, 1, 4, 64, 3000})};
        o.top_k = std::max(o.top_k, 0);
        if (most_top_k > 0) {
            o.top_k = uniform(1, most_top_k);
            if (o.temperature == 0) o.temperature = 0.8F;
        }
        o.seed = static_cast<std::uint64_t>(random()) << 32 | random();
        return o;
    }

    /// A row of one of several shapes.
    std::vector<float> logits(int kind, int vocabulary) {
        std::vector<float> row(static_cast<std::size_t>(vocabulary));
        const float level = pick<float>({0, 1, -90, 1e4F}), grid = pick<float>({0.5F, 0.001F, 1e-6F});
        for (float& l : row) l = one(kind, level, grid);
        const auto place = [&]() -> float& {
            return row[static_cast<std::size_t>(uniform(0, vocabulary - 1))];
        };
        if (kind == terraces) {
            float height = 0;
            for (std::size_t id = 0, left = 1, size = 1; id < row.size(); ++id) {
                row[id] = height;
                if (--left > 0) continue;
                left = size *= 3;
                height -= 0.4F;
            }
            std::shuffle(row.begin(), row.end(), random);
        }
        if (kind == few_finite)
            for (int i = 0; i < 3; ++i) place() = normal(2);
        if (kind == peaked)
            for (int i = 0; i < 20; ++i) place() = 10 + normal(2);
        if (kind == peaked || kind == one_of_many) {  // two equal to rounding, or quite
            const float l = 15 + normal(1);
            place() = l;
            place() = uniform(0, 1) ? l : std::nextafter(l, inf);
        }
        return row;
    }

  private:
    float one(int kind, float level, float grid) {
        switch (kind) {
            case flat:
                return level + normal(1);
            case wide:
                return level + normal(4);
            case nearly_equal:
                return level + normal(1e-4F);
            case equal:
                return level;
            case few_finite:
                return -inf;
            case ties:
                return std::round(normal(4) / grid) * grid;
            case zeros:
                return uniform(0, 1) ? 0.0F : -0.0F;
            case peaked:
                return -8 + normal(2.5F);
            case huge:
                return normal(1000);
            case halves:
                return -std::log(2.0F) * static_cast<float>(uniform(0, 20));
            case one_of_many:
                return uniform(0, 9) ? -30.0F : -inf;
            default:
                return uniform(0, 99) ? normal(3) : pick<float>({inf, -inf, 3e38F, -3e38F, 1e-45F});
        }
    }
};

/// What one row's sampler draws, or the message of its Error.
struct Outcome {
    std::int32_t id = -1;
    std::string error = {};
    bool operator==(const Outcome&) const = default;
};

template <class F>
Outcome outcome(F draw) {
    try {
        return {draw(), {}};
    } catch (const gg::Error& error) {
        return {-1, error.what()};
    }
}

/// `rows` sequences of `steps` draws each, with rows of kinds from `kind` on.
template <class Device>
void compare(Source& source, int vocabulary, int rows, int steps, int kind) {
    const int stride = vocabulary + source.uniform(0, 5);
    std::vector<SamplerOptions> options;
    std::vector<std::vector<unsigned>> blocked;
    std::vector<Sampler> samplers;
    std::vector<std::uint64_t> drawn(static_cast<std::size_t>(rows));
    for (int row = 0; row < rows; ++row) {
        options.push_back(source.options(vocabulary));
        std::function<bool(std::int32_t)> sampleable;
        const int share = source.pick<int>({0, 1, 10, 100});  // percent blocked, but for one id
        std::vector<bool> out(static_cast<std::size_t>(vocabulary));
        for (std::size_t id = 0; id < out.size(); ++id) out[id] = source.uniform(0, 99) < share;
        out[static_cast<std::size_t>(source.uniform(0, vocabulary - 1))] = false;
        if (share > 0) sampleable = [&](std::int32_t id) { return !out[static_cast<std::size_t>(id)]; };
        blocked.push_back(share > 0 ? gg::cuda::blocked_words(vocabulary, sampleable)
                                    : std::vector<unsigned>());
        samplers.emplace_back(options.back(), vocabulary, sampleable);
    }
    Device device(vocabulary, stride, options, blocked);
    for (int step = 0; step < steps; ++step) {
        std::vector<float> logits(static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride), 1e30F);
        std::vector<Outcome> expected;
        for (int row = 0; row < rows; ++row) {
            const auto r = static_cast<std::size_t>(row);
            const std::vector<float> values = source.logits((kind + row) % kinds, vocabulary);
            std::copy(values.begin(), values.end(),
                      logits.begin() + static_cast<std::ptrdiff_t>(r * static_cast<std::size_t>(stride)));
            std::vector<int> tokens;
            for (int i = source.pick<int>({0, 1, 3, 100}); i > 0; --i)
                tokens.push_back(source.uniform(0, vocabulary - 1));
            for (const int token : tokens) samplers[r].accept(token);
            device.accept(row, tokens);
            expected.push_back(outcome([&] { return samplers[r].sample(values); }));
        }
        const std::vector<int> ids = device.sample(logits);
        for (int row = 0; row < rows; ++row) {
            const auto r = static_cast<std::size_t>(row);
            const SamplerOptions& o = options[r];
            INFO("vocabulary " << vocabulary << ", kind " << (kind + row) % kinds << ", row " << row
                               << ", step " << step << ": temperature " << o.temperature << ", top-k "
                               << o.top_k << ", top-p " << o.top_p << ", min-p " << o.min_p << ", penalty "
                               << o.repeat_penalty << " over " << o.repeat_window << ", status " << ids[r]);
            const Outcome found = outcome([&] { return gg::cuda::drawn_id(ids[r], drawn[r]); });
            REQUIRE(found.id == expected[r].id);
            REQUIRE(found.error == expected[r].error);
            drawn[r] += expected[r].error.empty();
        }
    }
}

}  // namespace sampler_cases
