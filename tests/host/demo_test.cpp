// The bundled models against Hugging Face transformers in float32 on the values that the files hold, over
// 2000 positions of held-out prose. The goldens are made by tests/reference/demo_accuracy.py.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "catch.hpp"
#include "host/golden.hpp"

namespace {

struct Agreement {
    int positions = 0;
    int same_token = 0;
    std::vector<double> differences;
};

void compare_window(gg::Session& session, const nlohmann::json& window, Agreement& agreement) {
    auto tokens = window["tokens"].get<std::vector<std::int32_t>>();
    const auto logprob = window["logprob"].get<std::vector<double>>();
    const auto argmax = window["argmax"].get<std::vector<std::int32_t>>();
    REQUIRE(logprob.size() == tokens.size() - 1);
    const std::vector<std::int32_t> inputs(tokens.begin(), tokens.end() - 1);
    session.reset();
    session.score(inputs, [&](int row, std::span<const float> logits) {
        const auto at = static_cast<std::size_t>(row);
        const auto best = std::max_element(logits.begin(), logits.end());
        double sum = 0;
        for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - *best);
        const auto next = static_cast<std::size_t>(tokens[at + 1]);
        const double found = static_cast<double>(logits[next]) - *best - std::log(sum);
        agreement.differences.push_back(std::abs(found - logprob[at]));
        agreement.same_token += best - logits.begin() == argmax[at];
        ++agreement.positions;
    });
}

}  // namespace

TEST_CASE("bundled models agree with transformers on held-out prose") {
    for (const std::string name : {"demo-gpt-oss", "demo-gpt2"}) {
        INFO(name);
        std::ifstream stream(std::string(GG_TEST_DATA) + "/demo/" + name + ".json");
        const auto golden = nlohmann::json::parse(stream);
        const auto file = gg::gguf::File::open(std::string(GG_SOURCE_DIR) + "/runner/demo/" + name + ".gguf");
        const auto model = host_test::load(file);
        const auto session = model->session(model->info().dims.context);
        Agreement agreement;
        for (const auto& window : golden["windows"]) compare_window(*session, window, agreement);
        REQUIRE(agreement.positions >= 2000);
        std::sort(agreement.differences.begin(), agreement.differences.end());
        CHECK(agreement.differences[agreement.differences.size() / 2] <= 1e-5);
        CHECK(agreement.differences.back() <= 1e-3);
        CHECK(agreement.same_token >= 0.99 * agreement.positions);
    }
}
