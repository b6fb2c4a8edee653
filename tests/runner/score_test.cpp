#include <cmath>

#include "catch.hpp"
#include "nlohmann/json.hpp"
#include "subprocess.hpp"
#include "tiny_model.hpp"

using namespace runner_test;
using nlohmann::json;

namespace {

struct Model {
    gguf_test::TemporaryFolder folder;
    std::string path = folder / "tiny.gguf";
    explicit Model(const TinyModel& model = {}) { model.write(path); }
    Result score(std::vector<std::string> arguments, std::string_view input) const {
        arguments.insert(arguments.begin(), {"score", "-m", path});
        return run_gg(arguments, input);
    }
    json score_tokens(const std::string& ids, std::vector<std::string> more = {}) const {
        more.insert(more.end(), {"--json", "--tokens-file", "-"});
        const Result result = score(more, ids);
        CAPTURE(result.err);
        REQUIRE(result.code == 0);
        return json::parse(result.out);
    }
};

std::string ids_text(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += std::to_string(i * 37 % 256) + (i % 5 == 0 ? "\n" : "\t ");
    return text;
}

}  // namespace

TEST_CASE("gg score prints tokens, log-probabilities and their mean") {
    const Model m;
    const json result = m.score_tokens("104 101\n121");
    CHECK(result.size() == 4);
    CHECK(result["tokens"] == json({104, 101, 121}));
    const auto logprob = result["logprob"].get<std::vector<double>>();
    REQUIRE(logprob.size() == 2);
    for (const double value : logprob) CHECK((value < 0 && value > -40));
    const double nll = -(logprob[0] + logprob[1]) / 2;
    CHECK(result["nll"].get<double>() == Approx(nll).epsilon(1e-15));
    CHECK(result["perplexity"].get<double>() == Approx(std::exp(nll)).epsilon(1e-15));
    const Result text = m.score({"--tokens-file", "-"}, "104 101 121");
    CHECK(text.code == 0);
    CHECK(text.out.find("perplexity") != std::string::npos);
}

TEST_CASE("the probabilities after a context sum to one") {
    // 264 runs would take long; one context with every row of the vocabulary does the same through one token:
    // each possible last token is scored after the same beginning.
    const Model m(TinyModel{.padding = 0, .specials = false});
    double sum = 0;
    for (int id = 0; id < 258; ++id)
        sum += std::exp(m.score_tokens("65 66 " + std::to_string(id))["logprob"][1].get<double>());
    CHECK(sum == Approx(1).epsilon(1e-6));
}

TEST_CASE("gg score gives the same numbers for the same beginning, whatever the length and the threads") {
    const Model m(TinyModel{.context = 700});
    const auto whole = m.score_tokens(ids_text(700))["logprob"];
    for (const int length : {2, 100, 256, 257, 258, 400, 513}) {
        const auto part = m.score_tokens(ids_text(length), {"--threads", "1"})["logprob"];
        REQUIRE(part.size() == static_cast<std::size_t>(length) - 1);
        for (std::size_t i = 0; i < part.size(); ++i) REQUIRE(part[i] == whole[i]);
    }
}

TEST_CASE("gg score tokenises a text, after a beginning-of-text token if the model wants one") {
    const Model without, with(TinyModel{.adds_bos = true});
    const auto tokens = [](const Model& m, const char* text) {
        const Result result = m.score({"--text-file", "-", "--json"}, text);
        REQUIRE(result.code == 0);
        return json::parse(result.out)["tokens"];
    };
    CHECK(tokens(without, "hey<|im_end|>\n").size() == 12);
    CHECK(tokens(without, "hey you") == json({257, 32, 121, 111, 117}));
    CHECK(tokens(with, "hey you") == json({258, 257, 32, 121, 111, 117}));
    CHECK(tokens(with, "a") == json({258, 97}));
}

TEST_CASE("gg score refuses what it cannot score") {
    const Model m(TinyModel{.context = 16});
    const auto refused = [&](const std::string& input, const char* reason) {
        const Result result = m.score({"--tokens-file", "-", "--json"}, input);
        CAPTURE(input);
        CHECK(result.code == 1);
        CHECK(json::parse(result.out)["error"]["message"].get<std::string>().find(reason) !=
              std::string::npos);
        CHECK(result.err.find(reason) != std::string::npos);
    };
    refused("", "found 0");
    refused("5", "found 1");
    refused("5 264", "position 1");
    refused("5 6 -1", "position 2");
    refused("x 6", "position 0");
    refused("5,6", "position 0");
    refused(ids_text(18), "found 18");
    CHECK(m.score_tokens(ids_text(17))["logprob"].size() == 16);
    CHECK(m.score_tokens("5 263")["logprob"].size() == 1);  // a padding row has a probability too
    CHECK(m.score({"--tokens-file", m.folder / "missing"}, "").code == 1);
    CHECK(m.score({"--tokens-file", "-", "--device", "cuda"}, "1 2").code == 1);
}
