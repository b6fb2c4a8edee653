// Models on the GPU for tests: loaded with the embedded headers, and what their logits say.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cuda/device.hpp"
#include "gg/cuda/device_headers.hpp"
#include "gg/cuda/load_options.hpp"
#include "host/golden.hpp"

namespace cuda_test {

/// gg::cuda::load_model with the embedded headers.
std::unique_ptr<gg::Model> load(const gg::gguf::File& file, gg::cuda::LoadOptions options);
/// The same; `synthetic` if the file is one of those, `log` to note when
/// kernels run. Defined in golden_test.cpp, so that the backend is compiled once in this program.
std::unique_ptr<gg::Model> load(const gg::gguf::File& file,
                                gg::cuda::Launches launches = gg::cuda::Launches::early_graph,
                                const std::vector<std::string>& compile_options = {},
                                const gg::SyntheticFile* synthetic = nullptr,
                                gg::cuda::StageLog* log = nullptr);

/// Logits of every position.
using Logits = std::vector<std::vector<float>>;

inline Logits score(gg::Session& session, std::span<const std::int32_t> tokens) {
    Logits all;
    session.score(tokens, [&](int, std::span<const float> row) { all.emplace_back(row.begin(), row.end()); });
    return all;
}

/// Appends tokens in pieces of the given sizes, the last one again and again; the logits after each piece.
inline Logits prefill(gg::Session& session, std::span<const std::int32_t> tokens, std::vector<int> pieces) {
    Logits all;
    for (std::size_t i = 0; !tokens.empty(); ++i) {
        const auto size = static_cast<std::size_t>(pieces[std::min(i, pieces.size() - 1)]);
        const auto piece = tokens.first(std::min(size, tokens.size()));
        session.prefill(piece);
        const auto row = session.logits();
        all.emplace_back(row.begin(), row.end());
        tokens = tokens.subspan(piece.size());
    }
    return all;
}

inline std::vector<double> log_probabilities(std::span<const float> logits) {
    const double top = *std::max_element(logits.begin(), logits.end());
    double total = 0.0;
    for (const float logit : logits) total += std::exp(logit - top);
    const double normaliser = top + std::log(total);
    std::vector<double> values;
    for (const float logit : logits) values.push_back(logit - normaliser);
    return values;
}

inline std::size_t largest(std::span<const double> values) {
    return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

/// How much larger the largest value is than the second.
inline double lead(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + 1, values.end(), std::greater<>());
    return *std::max_element(values.begin(), values.begin() + 1) - values[1];
}

/// Differences between two sets of log-probabilities of the same positions.
inline host_test::Differences differences(const Logits& a, const Logits& b) {
    host_test::Differences found;
    for (std::size_t row = 0; row < a.size(); ++row) {
        const auto x = log_probabilities(a[row]), y = log_probabilities(b[row]);
        for (std::size_t i = 0; i < x.size(); ++i) found.add(x[i], y[i]);
    }
    return found;
}

inline bool same_bits(const Logits& a, const Logits& b) {
    if (a.size() != b.size()) return false;
    for (std::size_t row = 0; row < a.size(); ++row)
        if (a[row].size() != b[row].size() ||
            std::memcmp(a[row].data(), b[row].data(), a[row].size() * sizeof(float)) != 0)
            return false;
    return true;
}

}  // namespace cuda_test
