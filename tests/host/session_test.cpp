// Sessions: the same bits however a prompt is cut, whatever the threads, whoever else is served; refusals
// that change nothing; drawing; memory as foretold.
#include "subject.hpp"

#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

#include "catch.hpp"
#include "gg/host/memory.hpp"
#include "gg/host/plan.hpp"
#include "refusal.hpp"

using namespace host_test;
using gg_test::refusal;

namespace {

/// Scores the rest of the tokens, `sizes` of them at a time in turn.
Logits score(const Subject& subject, gg::Session& session, const std::vector<int>& sizes) {
    Logits all;
    for (std::size_t i = 0; session.position() < subject.length(); ++i) {
        const int first = session.position();
        const int count = std::min(sizes[i % sizes.size()], subject.length() - first);
        int expected_row = 0;
        session.score(subject.part(first, count), [&](int row, std::span<const float> logits) {
            if (row != expected_row++) FAIL("row " << row << " out of order");
            append(all, logits);
        });
        REQUIRE(expected_row == count);
        REQUIRE(session.position() == first + count);
    }
    return all;
}

Logits score_whole(const Subject& subject, gg::Session& session) {
    return score(subject, session, {subject.length()});
}
Logits score_whole(const Subject& subject) {
    return score_whole(subject, *subject.session());
}

}  // namespace

TEST_CASE("cached decode equals recomputing the whole prompt, at every position") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const auto decoding = subject.session(), whole = subject.session();
        int different = 0;
        for (int i = 0; i < subject.length(); ++i) {
            const auto cached = logits_after(*decoding, subject.part(i, 1));
            whole->reset();
            different += !same_bits(cached, logits_after(*whole, subject.part(0, i + 1)));
        }
        CAPTURE(name);
        CHECK(different == 0);
        CHECK(decoding->position() == subject.length());
    }
}

TEST_CASE("a prompt in pieces gives the same bits as whole") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const Logits whole = score_whole(subject);
        for (const std::vector<int>& sizes :
             std::vector<std::vector<int>>{{1}, {7}, {64}, {129}, {256}, {3, 1, 90, 2}}) {
            CAPTURE(name, sizes[0], sizes.size());
            CHECK(same_bits(score(subject, *subject.session(), sizes), whole));
            const auto session = subject.session();
            std::span<const float> last;
            for (std::size_t i = 0; session->position() < subject.length(); ++i) {
                const int first = session->position();
                last = logits_after(*session, subject.part(first, std::min(sizes[i % sizes.size()],
                                                                           subject.length() - first)));
                if (!same_bits(last, subject.row(whole, session->position() - 1)))
                    FAIL_CHECK("prefill to " << session->position());
            }
            CHECK(same_bits(last, subject.row(whole, subject.length() - 1)));
        }
    }
}

TEST_CASE("past the window and past 4096 tokens, pieces give the same bits as whole") {
    const Subject subject("gpt-oss-long");
    const Logits whole = score_whole(subject);
    REQUIRE(whole.size() == 4200 * subject.vocabulary());
    for (const std::vector<int>& sizes : std::vector<std::vector<int>>{{129}, {1, 255, 17, 301, 64, 3}}) {
        CAPTURE(sizes[0]);
        CHECK(same_bits(score(subject, *subject.session(), sizes), whole));
    }
    // Most of it at once, then token by token across the 4096th.
    const auto session = subject.session();
    session->prefill(subject.part(0, 4090));
    for (int i = 4090; i < 4110; ++i)
        if (!same_bits(logits_after(*session, subject.part(i, 1)), subject.row(whole, i))) FAIL_CHECK(i);
}

TEST_CASE("a context larger than the tokens gives the same bits") {
    const Subject subject("gpt-oss-window");
    const Logits whole = score_whole(subject);
    CHECK(same_bits(score_whole(subject, *subject.model->session(512)), whole));
}

TEST_CASE("the number of threads does not change a bit") {
    for (const std::string& name : families) {
        const Logits alone = score_whole(Subject(name, 1));
        for (const int threads : {2, 3, 5}) {
            const Subject subject(name, threads);
            CAPTURE(name, threads);
            CHECK(same_bits(score_whole(subject), alone));
            CHECK(same_bits(score(subject, *subject.session(), {40, 1, 1, 1}), alone));
        }
    }
}

TEST_CASE("a reset session gives the same bits, whatever it computed before") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const Logits alone = score_whole(subject);
        const auto session = subject.session();
        CAPTURE(name);
        for (int time = 0; time < 2; ++time) {
            session->reset();
            CHECK(session->position() == 0);
            CHECK(same_bits(score_whole(subject, *session), alone));
        }
        std::vector<std::int32_t> other(subject.tokens.rbegin() + 3, subject.tokens.rend());
        session->reset();
        session->prefill(other);
        session->reset();
        CHECK(same_bits(score(subject, *session, {50, 9}), alone));
    }
}

TEST_CASE("sessions of one model do not influence each other") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const std::vector<std::int32_t> reversed(subject.tokens.rbegin(), subject.tokens.rend());
        Logits alone_reversed;
        const auto collect = [](Logits& all) {
            return [&all](int, std::span<const float> row) { append(all, row); };
        };
        subject.session()->score(reversed, collect(alone_reversed));
        const auto first = subject.session(), second = subject.session();
        Logits together, together_reversed;
        for (int i = 0; i < subject.length(); i += 5) {
            const int count = std::min(5, subject.length() - i);
            first->score(subject.part(i, count), collect(together));
            second->score(
                std::span(reversed).subspan(static_cast<std::size_t>(i), static_cast<std::size_t>(count)),
                collect(together_reversed));
        }
        CAPTURE(name);
        CHECK(same_bits(together, score_whole(subject)));
        CHECK(same_bits(together_reversed, alone_reversed));
    }
}

TEST_CASE("a refused call leaves the session as it was") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const Logits expected = score_whole(subject);
        const int vocabulary = static_cast<int>(subject.vocabulary());
        const auto session = subject.model->session(20);
        CHECK(session->context() == 20);
        session->prefill(subject.part(0, 15));

        const auto by_both = [&](gg::ErrorCode code, std::vector<std::int32_t> tokens,
                                 const std::vector<std::string>& parts) {
            const std::string message = refusal(code, [&] { session->prefill(tokens); });
            CAPTURE(name, message);
            CHECK(contains(message, parts));
            CHECK(refusal(code, [&] {
                      session->score(tokens, [](int, std::span<const float>) { FAIL("it computed"); });
                  }) == message);
            CHECK(session->position() == 15);
        };
        by_both(gg::ErrorCode::invalid_request, {}, {"no tokens", "at least one"});
        by_both(gg::ErrorCode::invalid_request, {1, vocabulary, 2},
                {"token 1", "0 to " + std::to_string(vocabulary - 1), "found " + std::to_string(vocabulary)});
        by_both(gg::ErrorCode::invalid_request, {1, 2, -1}, {"token 2", "found -1"});
        by_both(gg::ErrorCode::invalid_request, {std::numeric_limits<std::int32_t>::min()},
                {"token 0", "found -2147483648"});
        by_both(gg::ErrorCode::context_full, std::vector<std::int32_t>(6, 1), {"6 tokens", "15 of 20"});
        by_both(gg::ErrorCode::context_full, std::vector<std::int32_t>(1000, 1), {"1000 tokens", "15 of 20"});

        // The rest fits to the last token, and comes out as if nothing had been asked in between.
        for (int i = 15; i < 20; ++i)
            if (!same_bits(logits_after(*session, subject.part(i, 1)), subject.row(expected, i)))
                FAIL_CHECK(i);
        CHECK(contains(refusal(gg::ErrorCode::context_full, [&] { session->prefill(subject.part(20, 1)); }),
                       {"1 tokens", "20 of 20"}));
        session->reset();
        CHECK(same_bits(logits_after(*session, subject.part(0, 20)), subject.row(expected, 19)));
    }
}

TEST_CASE("logits() are those after the last token, however it was appended") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const Logits expected = score_whole(subject);
        const auto session = subject.session();
        CAPTURE(name);
        const auto no_token = [&] {
            CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { session->logits(); }),
                           {"at least one token"}));
        };
        no_token();
        session->prefill(subject.part(0, 3));
        CHECK(same_bits(session->logits(), subject.row(expected, 2)));
        CHECK(same_bits(session->logits(), subject.row(expected, 2)));
        // Rows are scored 16 at a time.
        const auto ignore = [](int, std::span<const float>) {};
        for (const int count : {1, 16, 20}) {
            session->score(subject.part(session->position(), count), ignore);
            CHECK(same_bits(session->logits(), subject.row(expected, session->position() - 1)));
        }
        session->prefill(subject.part(40, 1));
        CHECK(same_bits(session->logits(), subject.row(expected, 40)));
        session->reset();
        no_token();
        session->prefill(subject.part(0, 1));
        // Left in the middle, so what comes after the last token was not computed.
        const auto leave = [](int row, std::span<const float>) {
            if (row == 2) throw std::runtime_error("enough");
        };
        CHECK_THROWS_AS(session->score(subject.part(1, 5), leave), std::runtime_error);
        CHECK(
            contains(refusal(gg::ErrorCode::invalid_request, [&] { session->logits(); }), {"not completed"}));
        session->reset();
        session->prefill(subject.part(0, 5));
        CHECK(same_bits(session->logits(), subject.row(expected, 4)));
    }
}

namespace {

/// A prompt and a reply of `count` tokens, by a sampler that is told every token, as the sampler defines it.
std::vector<std::int32_t> reply_by_sampler(const Subject& subject, int prompt, int count) {
    gg::text::Sampler sampler(hot, static_cast<int>(subject.vocabulary()), is_even);
    const auto session = subject.session();
    std::span<const float> logits = logits_after(*session, subject.part(0, prompt));
    for (const std::int32_t id : subject.part(0, prompt)) sampler.accept(id);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < count; ++i) {
        ids.push_back(sampler.sample(logits));
        sampler.accept(ids.back());
        logits = logits_after(*session, {&ids.back(), 1});
    }
    return ids;
}

}  // namespace

TEST_CASE("a session draws what the sampler draws that knows all its tokens") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const std::vector<std::int32_t> expected = reply_by_sampler(subject, 20, 12);
        CHECK(std::all_of(expected.begin(), expected.end(), is_even));
        const auto session = subject.session();
        CAPTURE(name);
        session->set_sampling(hot, is_even);
        session->prefill(subject.part(0, 13));
        session->prefill(subject.part(13, 7));
        CHECK(reply(*session, 12) == expected);
        // Reset forgets the tokens and the steps, not the options.
        session->reset();
        session->score(subject.part(0, 20), [](int, std::span<const float>) {});
        CHECK(reply(*session, 12) == expected);
        // Tokens from before set_sampling count too, and it begins at the first step.
        const auto late = subject.session();
        late->prefill(subject.part(0, 20));
        late->set_sampling({.seed = 4}, {});
        late->sample();
        late->set_sampling(hot, is_even);
        CHECK(reply(*late, 12) == expected);
        CHECK(late->position() == 32);
    }
}

TEST_CASE("drawing is refused without options, without a token, and with options out of range") {
    const Subject subject("llama-320");
    const auto session = subject.session();
    session->prefill(subject.part(0, 2));
    CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { session->sample(); }), {"set_sampling"}));
    session->reset();
    const gg::text::SamplerOptions greedy{.temperature = 0.0F};
    session->set_sampling(greedy, {});
    CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { session->sample(); }), {"one token"}));
    session->prefill(subject.part(0, 20));
    CHECK(contains(
        refusal(gg::ErrorCode::invalid_request, [&] { session->set_sampling({.temperature = -1.0F}, {}); }),
        {"temperature", "0 or more"}));
    const std::span<const float> logits = session->logits();  // as before the refusal, and the options too
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    CHECK(session->sample() == best);
    CHECK(session->sample() == best);
    CHECK(session->position() == 20);
}

TEST_CASE("a session has at most the model's context") {
    for (const std::string& name : families) {
        const Subject subject(name);
        const int most = subject.model->info().dims.context;
        CHECK(subject.model->session(most)->context() == most);
        for (const int context : {most + 1, 0, -1, std::numeric_limits<int>::max()})
            CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { subject.model->session(context); }),
                           {"1 to " + std::to_string(most), "found " + std::to_string(context)}));
    }
}

TEST_CASE("a model says what memory is left beside its weights") {
    const Subject subject("llama-320");
    const auto system = gg::host::available_memory();
    const auto left = subject.model->available_bytes();
    REQUIRE(system.has_value() == left.has_value());
    CHECK(subject.model->memory_name() == "memory");
    CHECK(subject.model->chunk() == 256);
    if (!system) GG_SKIP("the system does not tell");
    // Of a tiny model nearly all; other programs take and give back meanwhile.
    CHECK(*left > *system / 2);
    CHECK(*left < *system * 2);
}

TEST_CASE("only full layers' caches grow with the context") {
    const Subject subject("gpt-oss-long");  // one sliding layer, one full
    const gg::Dims& dims = subject.model->info().dims;
    const gg::CacheShape& shape = gg::host::cache_shape;
    CHECK(gg::cache_positions(dims, 0, 4096, shape) == 384);  // 127 + 256, in whole tiles of 16
    CHECK(gg::cache_positions(dims, 0, 131072, shape) == 384);
    CHECK(gg::cache_positions(dims, 1, 4096, shape) == 4096);
    CHECK(gg::cache_positions(dims, 1, 131072, shape) == 131072);
    const std::uint64_t one_layer = (131072 - 4096) * 2 * 64 * 4;
    const std::uint64_t grown = subject.model->session_bytes(131072) - subject.model->session_bytes(4096);
    CHECK(grown >= one_layer);
    CHECK(grown < 2 * one_layer);
}

// Asks glibc what it gave out. A sanitiser puts its own allocator in its place.
#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 33)
#define GG_TEST_HAS_MALLINFO2
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#undef GG_TEST_HAS_MALLINFO2
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#undef GG_TEST_HAS_MALLINFO2
#endif
#endif

TEST_CASE("a session takes the memory that was foretold") {
#if defined(GG_TEST_HAS_MALLINFO2)
    const auto allocated = [] {
        const struct mallinfo2 info = ::mallinfo2();
        return static_cast<std::uint64_t>(info.uordblks) + static_cast<std::uint64_t>(info.hblkhd);
    };
    struct Load {
        const char* name;
        int context, threads;
    };
    for (const Load& load : std::vector<Load>{{"gpt2-half", 64, 2},
                                              {"llama-320", 512, 2},
                                              {"gpt-oss-window", 512, 2},
                                              {"gpt-oss-long", 4200, 2},
                                              {"gpt-oss-long", 131072, 2},
                                              {"llama-long", 8192, 2},
                                              {"llama-long", 8192, 16}}) {
        const Subject subject(load.name, load.threads);
        const std::uint64_t foretold = subject.model->session_bytes(load.context);
        std::vector<std::int32_t> tokens = subject.tokens;
        tokens.resize(static_cast<std::size_t>(std::min(load.context, 6000)), 1);
        const std::uint64_t before = allocated();
        const auto session = subject.model->session(load.context);
        // Drawing among all ids takes most.
        session->set_sampling({.top_k = 0, .repeat_penalty = 1.1F}, [](std::int32_t id) { return id == 1; });
        // A prompt, then tokens one by one: scratch space must not grow with the position.
        const std::size_t prompt = tokens.size() - std::min<std::size_t>(tokens.size() / 2, 150);
        session->prefill(std::span(tokens).first(prompt));
        for (std::size_t i = prompt; i < tokens.size(); ++i)
            session->prefill(std::span(tokens).subspan(i, 1));
        session->sample();
        session->reset();
        session->score(tokens, [](int, std::span<const float>) {});
        const std::uint64_t taken = allocated() - before;
        std::printf("%-16s context %6d, %2d threads: foretold %9llu bytes, taken %9llu\n", load.name,
                    load.context, load.threads, static_cast<unsigned long long>(foretold),
                    static_cast<unsigned long long>(taken));
        CAPTURE(load.name, load.context, load.threads, foretold, taken);
        CHECK(taken <= foretold);
        // What it says of itself, but for what the allocator rounds, and keeps for later.
        CHECK(session->bytes() <= foretold);
        CHECK(session->bytes() <= taken + (1u << 14));
        CHECK(taken <= session->bytes() + (1u << 16));
        CHECK(foretold <= 2 * taken + (8u << 20));
    }
#else
    GG_SKIP("the allocator does not tell what it gave out");
#endif
}
