// The bundled models and what Hugging Face transformers says of them in float32, on the values that the files
// hold: windows of held-out prose. The goldens are made by tests/reference/demo_accuracy.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "gg/model/session.hpp"

namespace host_test {

inline std::filesystem::path demo_model(const std::string& name) {
    return std::filesystem::path(GG_SOURCE_DIR) / "runner/demo" / (name + ".gguf");
}

struct DemoWindow {
    std::vector<std::int32_t> tokens;
    std::vector<double> logprob;       ///< of tokens 1, 2, ...
    std::vector<std::int32_t> argmax;  ///< the likeliest in place of each of them
};

inline std::vector<DemoWindow> read_demo(const std::string& name) {
    std::ifstream in(std::string(GG_TEST_DATA) + "/demo/" + name + ".json");
    const auto json = nlohmann::json::parse(in);
    std::vector<DemoWindow> windows;
    for (const auto& window : json.at("windows")) {
        windows.push_back({window.at("tokens"), window.at("logprob"), window.at("argmax")});
        const DemoWindow& w = windows.back();
        if (w.logprob.size() + 1 != w.tokens.size() || w.argmax.size() != w.logprob.size())
            throw std::runtime_error(name + ".json: as many log-probabilities as tokens but one are needed");
    }
    return windows;
}

/// How far a model is from its windows.
struct Agreement {
    int positions = 0;
    int same_token = 0;
    std::vector<double> differences;  ///< of log-probabilities, ascending
};

inline Agreement agreement(const gg::Model& model, const std::vector<DemoWindow>& windows) {
    const auto session = model.session(model.info().dims.context);
    Agreement result;
    for (const DemoWindow& window : windows) {
        session->reset();
        session->score(std::span(window.tokens).first(window.argmax.size()),
                       [&](int row, std::span<const float> logits) {
                           const auto at = static_cast<std::size_t>(row);
                           const auto best = std::max_element(logits.begin(), logits.end());
                           double sum = 0;
                           for (const float logit : logits)
                               sum += std::exp(static_cast<double>(logit) - *best);
                           const auto next = static_cast<std::size_t>(window.tokens[at + 1]);
                           const double found = static_cast<double>(logits[next]) - *best - std::log(sum);
                           result.differences.push_back(std::abs(found - window.logprob[at]));
                           result.same_token += best - logits.begin() == window.argmax[at];
                           ++result.positions;
                       });
    }
    std::sort(result.differences.begin(), result.differences.end());
    return result;
}

}  // namespace host_test
