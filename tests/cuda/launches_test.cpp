// However the kernels of a step are launched, and whenever each of them gets to run, the logits are the same
// to the bit.
#include <chrono>
#include <cstdio>

#include "cuda/subject.hpp"

using namespace cuda_test;
using gg::cuda::Launches;

namespace {

const std::vector<std::string> jittery = {"-DGG_JITTER"};

/// Logits after tokens one by one, then after pieces of eight, and after steps that draw, of two sessions
/// apart and together.
Logits decode(const Subject& subject) {
    const int in_eights = repeats(40, 8);
    const int singles = std::min(repeats(30, 4), subject.model->info().dims.context - in_eights);
    std::vector<int> sizes(static_cast<std::size_t>(singles), 1);
    sizes.push_back(8);
    Logits all = prefill(*subject.session(singles + in_eights), subject.tokens(singles + in_eights), sizes);
    const int steps = repeats(10, 3);
    const auto first = subject.session(30), second = subject.session(30);
    for (gg::Session* session : {first.get(), second.get()}) {
        session->set_sampling({.repeat_penalty = 1.2F, .repeat_window = 5, .seed = 3}, {});
        session->prefill(subject.tokens(4, session == first.get() ? 1 : 2));
        for (int i = 0; i < steps; ++i) session->decode();
    }
    gg::Session* const both[] = {first.get(), second.get()};
    for (int i = 0; i < steps; ++i) subject.model->decode(both);
    for (gg::Session* session : both) {
        const auto row = session->logits();
        all.emplace_back(row.begin(), row.end());
    }
    return all;
}

/// The median of a step's time, microseconds.
double step_time(const Subject& subject) {
    const auto session = subject.session(64);
    std::vector<double> times;
    for (const std::int32_t token : subject.tokens(60)) {
        const auto begin = std::chrono::steady_clock::now();
        session->prefill({&token, 1});
        session->logits();
        times.push_back(
            std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
    }
    std::nth_element(times.begin(), times.begin() + 30, times.end());
    return times[30];
}

}  // namespace

TEST_CASE("every way to launch a step gives the same bits") {
    GG_NEED_GPU();
    for (const std::string name : {"gpt2-half", "llama-320", "gpt-oss-mxfp4"}) {
        const std::filesystem::path path = host_test::golden_model(name);
        const Subject subject(path);
        const Logits expected = decode(subject);
        REQUIRE(std::ssize(expected) >= repeats(24 + 5, 4 + 1) + 2);
        CHECK_FALSE(same_bits(expected[0], expected[1]));
        CAPTURE(name);
        CHECK(same_bits(decode(subject), expected));
        CHECK(same_bits(decode(Subject(path, Launches::graph)), expected));
        CHECK(same_bits(decode(Subject(path, Launches::plain)), expected));
        const Subject delayed(path, Launches::early_graph, jittery);
        for (int run = 0; run < repeats(3, 1); ++run) CHECK(same_bits(decode(delayed), expected));
        if (is_brief()) continue;  // a tool's time, not the steps'
        // A dozen kernels a step or more, in each of which blocks sleep for up to four microseconds.
        const double time = step_time(subject), delayed_time = step_time(delayed);
        std::printf("%-16s a step takes %.0f us, with random delays %.0f us\n", name.c_str(), time,
                    delayed_time);
        CHECK(delayed_time > time + 5);
    }
}

TEST_CASE("options of the compiler reach every kernel, cached ones too") {
    GG_NEED_GPU();
    const std::filesystem::path path = host_test::golden_model("gpt2-half");
    const Subject cached(path);
    const std::string message = refusal(gg::ErrorCode::cuda_error,
                                        [&] { Subject(path, Launches::early_graph, {"--no-such-option"}); });
    CAPTURE(message);
    CHECK(message.find("no-such-option") != message.npos);
}
