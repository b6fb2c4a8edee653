// Sessions forked off others: the bits of a session that read the tokens itself, wherever it was forked and
// whatever the two contexts; refusals that say what is possible.
#include "catch.hpp"
#include "refusal.hpp"
#include "subject.hpp"

using namespace host_test;
using gg_test::refusal;

namespace {

std::vector<float> copy(std::span<const float> logits) {
    return {logits.begin(), logits.end()};
}

/// Logits after the tokens of a subject from `session`'s position up to `end`, appended in pieces.
std::vector<float> read_to(const Subject& subject, gg::Session& session, int end, int piece) {
    while (session.position() < end)
        session.prefill(subject.part(session.position(), std::min(piece, end - session.position())));
    return copy(session.logits());
}

std::string refused_fork(gg::Session& session, int tokens, int context) {
    return refusal(gg::ErrorCode::invalid_request, [&] { session.fork(tokens, context); });
}

}  // namespace

TEST_CASE("a fork has the bits of a session that read the tokens itself") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const int length = subject.length(), most = subject.model->info().dims.context;
        const auto source = subject.session();
        source->prefill(subject.part(0, length - 8));
        for (const int tokens : {1, 2, 15, 16, 17, length / 2, length - 9, length - 8})
            for (const int context : {tokens + 6, length, most}) {
                CAPTURE(name, tokens, context);
                const auto fork = source->fork(tokens, context);
                CHECK(fork->position() == tokens);
                CHECK(fork->context() == context);
                const auto reader = subject.session();
                reader->prefill(subject.part(0, tokens));
                const int step = tokens + 1, end = tokens + 6;
                CHECK(same_bits(read_to(subject, *fork, step, 1), read_to(subject, *reader, step, 1)));
                CHECK(same_bits(read_to(subject, *fork, end, 3), read_to(subject, *reader, end, 5)));
            }
        // The source was left alone, and goes on.
        const auto reader = subject.session();
        CHECK(same_bits(read_to(subject, *source, length, 2), read_to(subject, *reader, length, length)));
    }
}

TEST_CASE("a fork past the window has the bits of a session that read the tokens itself") {
    const Subject subject("gpt-oss-long");  // layer 0 slides: window 128, a ring of 384 positions
    for (const int length : {300, 384, 385, 500, 769, 1000}) {
        const auto source = subject.model->session(4200);
        source->prefill(subject.part(0, length));
        const int fewest = length <= 384 ? 1 : length - 384 + 127;
        for (const int tokens : {fewest, fewest + 1, (fewest + length) / 2, length - 1, length})
            for (const int context : {tokens, tokens + 1, tokens + 300, 4200}) {
                CAPTURE(length, tokens, context);
                const auto fork = source->fork(tokens, context);
                const auto reader = subject.model->session(4200);
                reader->prefill(subject.part(0, tokens));
                if (tokens == length) CHECK(same_bits(fork->logits(), reader->logits()));
                if (context == tokens) {
                    CHECK(contains(
                        refusal(gg::ErrorCode::context_full, [&] { fork->prefill(subject.part(0, 1)); }),
                        {std::to_string(tokens) + " of " + std::to_string(tokens)}));
                    continue;
                }
                CHECK(same_bits(read_to(subject, *fork, tokens + 1, 1),
                                read_to(subject, *reader, tokens + 1, 1)));
                if (context < tokens + 300) continue;
                CHECK(same_bits(read_to(subject, *fork, tokens + 300, 71),
                                read_to(subject, *reader, tokens + 300, 256)));
            }
        if (fewest == 1) continue;
        for (const int tokens : {1, fewest - 1})
            CHECK(contains(refused_fork(*source, tokens, 4200),
                           {"fork: tokens", std::to_string(fewest) + " to " + std::to_string(length),
                            "found " + std::to_string(tokens), "have forgotten the keys", "fork earlier"}));
    }
}

TEST_CASE("a fork can be forked, as far back as it holds keys, and reset") {
    const Subject subject("gpt-oss-long");
    const auto source = subject.model->session(4200);
    source->prefill(subject.part(0, 900));
    const auto first = source->fork(850, 1200);
    first->prefill(subject.part(850, 100));
    CHECK(contains(refused_fork(*first, 849, 1200), {"850 to 950", "found 849"}));
    for (const int tokens : {850, 900, 950}) {
        CAPTURE(tokens);
        const auto second = first->fork(tokens, 1100);
        const auto reader = subject.session();
        CHECK(same_bits(read_to(subject, *second, 1010, 64), read_to(subject, *reader, 1010, 256)));
    }
    first->reset();
    CHECK(contains(refused_fork(*first, 1, 1200), {"no tokens"}));
    first->prefill(subject.part(0, 40));
    const auto reader = subject.session();
    CHECK(same_bits(read_to(subject, *first->fork(1, 1200), 50, 50), read_to(subject, *reader, 50, 50)));
}

TEST_CASE("a fork has logits only if it has all tokens, and draws by its own options") {
    const Subject subject("gpt-oss-window");
    const auto source = subject.session();
    source->prefill(subject.part(0, 30));
    source->set_sampling(hot, is_even);
    const std::vector<float> logits = copy(source->logits());
    const auto all = source->fork(30, 100), front = source->fork(29, 100);
    CHECK(same_bits(all->logits(), logits));
    CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { front->logits(); }),
                   {"only the tokens in front were forked", "Append a token"}));
    CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { all->decode(); }), {"set_sampling"}));
    front->set_sampling(hot, is_even);
    CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { front->decode(); }), {"Append a token"}));
    front->prefill(subject.part(29, 1));
    CHECK(same_bits(front->logits(), logits));
    // The penalty knows the forked tokens; the sessions go separate ways from one prefix.
    all->set_sampling(hot, is_even);
    const std::vector<std::int32_t> expected = reply(*source, 12);
    CHECK(reply(*all, 12) == expected);
    CHECK(reply(*front, 12) == expected);
    // A session without logits gives none on.
    const auto leave = [](int, std::span<const float>) { throw std::runtime_error("enough"); };
    CHECK_THROWS_AS(all->score(subject.part(0, 2), leave), std::runtime_error);
    for (const int tokens : {all->position(), all->position() - 2})  // logits were after the second last
        CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { all->fork(tokens, 100)->logits(); }),
                       {"Append a token"}));
}

TEST_CASE("a fork that cannot be is refused, with what can be") {
    const Subject subject("llama-320");
    const int most = subject.model->info().dims.context;
    const auto source = subject.session();
    CHECK(contains(refused_fork(*source, 1, 10), {"no tokens", "at least one"}));
    source->prefill(subject.part(0, 20));
    for (const int tokens : {21, 0, -1, std::numeric_limits<int>::max()})
        CHECK(contains(refused_fork(*source, tokens, most),
                       {"fork: tokens: expected 1 to 20", "found " + std::to_string(tokens)}));
    for (const int context : {9, 0, -5, most + 1, std::numeric_limits<int>::max()})
        CHECK(contains(
            refused_fork(*source, 10, context),
            {"fork: context: expected 10 to " + std::to_string(most), "found " + std::to_string(context)}));
}
