// What a session on a GPU draws is what gg::text::Sampler draws from the session's own logits. The model has
// 4096 ids, two slices of the sampler's kernels.
#include <optional>

#include "cuda/subject.hpp"

using namespace cuda_test;
using gg::text::SamplerOptions;

namespace {

std::filesystem::path model_path() {
    return std::filesystem::path(GG_SOURCE_DIR) / "runner/demo/demo-gpt2.gguf";
}

constexpr int context = 400;

bool is_third(std::int32_t id) {
    return id % 3 == 0;
}

const SamplerOptions greedy{.temperature = 0.0F};
const SamplerOptions greedy_with_penalty{.temperature = 0.0F, .repeat_penalty = 1.3F, .repeat_window = 64};
const SamplerOptions hot{.temperature = 2.0F,
                         .top_k = 0,
                         .top_p = 1.0F,
                         .min_p = 0.0F,
                         .repeat_penalty = 1.5F,
                         .repeat_window = 30,
                         .seed = 11};

/// A session and the sampler that must agree with it.
class Pair {
  public:
    explicit Pair(const Subject& subject)
        : session_(subject.session(context)), vocabulary_(subject.vocabulary()) {}

    gg::Session& session() { return *session_; }
    const std::vector<std::int32_t>& drawn() const { return drawn_; }

    void set_sampling(const SamplerOptions& options, const std::function<bool(std::int32_t)>& sampleable) {
        session_->set_sampling(options, sampleable);
        sampler_.emplace(options, vocabulary_, sampleable);
        for (const std::int32_t token : tokens_) sampler_->accept(token);
    }
    void append(std::span<const std::int32_t> tokens) {
        session_->prefill(tokens);
        tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
        if (!sampler_) return;
        for (const std::int32_t token : tokens) sampler_->accept(token);
    }
    /// Draws and appends.
    void step() {
        const std::span<const float> logits = session_->logits();
        const std::int32_t expected = sampler_->sample({logits.begin(), logits.end()});
        const std::int32_t found = session_->sample();
        REQUIRE(found == expected);
        drawn_.push_back(found);
        append({&found, 1});
    }
    void steps(int count) {
        for (int i = 0; i < count; ++i) step();
    }
    void reset() {
        session_->reset();
        sampler_->reset();
        tokens_.clear();
        drawn_.clear();
    }

  private:
    std::unique_ptr<gg::Session> session_;
    int vocabulary_;
    std::optional<gg::text::Sampler> sampler_;
    std::vector<std::int32_t> tokens_, drawn_;
};

}  // namespace

TEST_CASE("a session on a GPU draws what the sampler draws from its logits") {
    GG_NEED_GPU();
    const Subject subject(model_path());
    struct Case {
        const char* name;
        SamplerOptions options;
        std::function<bool(std::int32_t)> sampleable;
    };
    for (const Case& test : std::vector<Case>{
             {"greedy", greedy, {}},
             {"default", {}, {}},
             {"another seed", {.seed = 123456789012345}, {}},
             {"greedy with penalty", greedy_with_penalty, {}},
             {"penalty beyond the prompt", {.repeat_penalty = 1.2F, .repeat_window = 300, .seed = 3}, {}},
             {"penalty within the prompt", {.repeat_penalty = 1.2F, .repeat_window = 7, .seed = 4}, {}},
             {"all ids", {.top_k = 0, .seed = 5}, {}},
             {"all ids, hot", hot, {}},
             {"blocked", {.top_k = 0, .min_p = 0.0F, .seed = 6}, is_third},
             {"greedy, blocked", greedy, is_third},
             {"hot, blocked", hot, is_third}}) {
        Pair pair(subject);
        pair.set_sampling(test.options, test.sampleable);
        // By the kernels of prefill, by the fused stages, and one token.
        const auto tokens = subject.tokens(26);
        for (const auto piece : pieces_of(tokens, {20, 5, 1})) pair.append(piece);
        CAPTURE(test.name);
        pair.steps(repeats(200, 2));
        const std::vector<std::int32_t> drawn = pair.drawn();
        if (test.sampleable) CHECK(std::all_of(drawn.begin(), drawn.end(), is_third));
        // Reset forgets the tokens and the steps, not the options.
        pair.reset();
        for (const auto piece : pieces_of(tokens, {20, 5, 1})) pair.append(piece);
        pair.steps(repeats(40, 1));
        CHECK(std::equal(pair.drawn().begin(), pair.drawn().end(), drawn.begin()));
    }
}

TEST_CASE("options given later count all tokens and begin at the first step") {
    GG_NEED_GPU();
    const Subject subject(model_path());
    const auto tokens = subject.tokens(60);
    Pair pair(subject);
    pair.append(std::span(tokens).first(20));
    pair.append(std::span(tokens).subspan(20, 1));
    pair.set_sampling(hot, {});
    pair.steps(repeats(20, 4));
    pair.set_sampling(greedy_with_penalty, is_third);
    pair.steps(repeats(20, 4));
    pair.append(std::span(tokens).subspan(21));  // more than the penalty's window
    pair.set_sampling({.seed = 9}, {});
    pair.steps(repeats(20, 4));
    pair.set_sampling(hot, is_third);
    pair.steps(repeats(20, 4));
    // Tokens that were scored count as well, and the last row of them is drawn from.
    const auto expected = [&] {
        gg::text::Sampler sampler(hot, subject.vocabulary());
        for (const std::int32_t token : tokens) sampler.accept(token);
        return sampler.sample(score(*subject.session(60), tokens).back());
    }();
    const auto session = subject.session(60);
    session->set_sampling(hot, {});
    session->score(tokens, [](int, std::span<const float>) {});
    CHECK(session->sample() == expected);
}

TEST_CASE("sessions that draw in turn draw what each draws alone") {
    GG_NEED_GPU();
    const Subject subject(model_path());
    const auto tokens = subject.tokens(12, 1), others = subject.tokens(30, 2);
    const auto start = [&](Pair& pair, const SamplerOptions& options,
                           const std::vector<std::int32_t>& prompt) {
        pair.set_sampling(options, {});
        pair.append(prompt);
    };
    Pair alone(subject), alone_other(subject), first(subject), second(subject);
    start(alone, hot, tokens);
    const int steps = repeats(60, 5);
    alone.steps(steps);
    start(alone_other, {}, others);
    alone_other.steps(steps);
    start(first, hot, tokens);
    start(second, {}, others);
    for (int i = 0; i < steps; ++i) {
        first.step();
        second.step();
    }
    CHECK(first.drawn() == alone.drawn());
    CHECK(second.drawn() == alone_other.drawn());
}

TEST_CASE("drawing on a GPU is refused without options, without a token, and with options out of range") {
    GG_NEED_GPU();
    const Subject subject(model_path());
    const auto tokens = subject.tokens(20);
    const auto session = subject.session(context);
    const auto invalid = [](const std::string& part, auto&& action) {
        const std::string message = refusal(gg::ErrorCode::invalid_request, action);
        CAPTURE(message);
        CHECK(message.find(part) != message.npos);
    };
    session->prefill(tokens);
    invalid("set_sampling", [&] { session->sample(); });
    session->reset();
    session->set_sampling(greedy, {});
    invalid("one token", [&] { session->sample(); });
    session->prefill(tokens);
    const std::int32_t best = session->sample();
    invalid("temperature", [&] { session->set_sampling({.temperature = -1.0F}, {}); });
    // The logits and the options are as before the refusal; drawing appends nothing.
    const std::span<const float> logits = session->logits();
    CHECK(best == std::max_element(logits.begin(), logits.end()) - logits.begin());
    CHECK(session->sample() == best);
    CHECK(session->position() == 20);
}
