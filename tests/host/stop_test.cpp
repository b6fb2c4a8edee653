// Computations that are ended early: where they end, what stays, and that what follows has the same bits.
#include <atomic>
#include <chrono>
#include <thread>

#include "catch.hpp"
#include "gg/host/model.hpp"
#include "refusal.hpp"
#include "subject.hpp"

using namespace host_test;
using gg_test::refusal;
using std::chrono::microseconds;
using Clock = gg::StopSignal::Clock;

namespace {

/// Does something when a layer has computed the key of so many tokens more.
struct AfterKeys : gg::AttentionPolicy {
    static inline std::atomic<int> keys{0};
    static inline std::function<void()> act;

    template <class Weights, class Dims>
    static void transform(const Weights&, const Dims&, const gg::HeadPlace& head, float*) {
        if (head.is_key && head.index == 0 && keys.fetch_sub(1) == 1) act();
    }
    /// cancel() by the key of token `token` of a call, counted from 0, in a layer: pieces have `chunk`
    /// tokens, the last one `rest`.
    static void cancel(gg::Session& session, int key) {
        act = [&session] { session.cancel(); };
        keys = key + 1;
    }
};

struct Stopping : gg::GptOss {
    using Layer =
        gg::Layer<gg::RmsNorm, gg::Attention<gg::YarnRope, gg::Sinks, gg::SlidingWindow, gg::Bias, AfterKeys>,
                  gg::MixtureOfExperts<gg::ClampedSwiglu, gg::Bias>>;
};

/// A golden's model with that layer.
struct StoppingSubject {
    explicit StoppingSubject(const std::string& name)
        : golden(name),
          model(golden.bytes.file(), gg::LoadOptions{.threads = 2}, gg::host::best_instruction_set()) {}

    Subject golden;
    gg::host::HostModel<Stopping> model;
};

void cancelled(const std::function<void()>& action) {
    CHECK(contains(refusal(gg::ErrorCode::cancelled, action), {"cancelled", "stay"}));
}

}  // namespace

TEST_CASE("a prompt that is cancelled in a layer keeps its complete pieces, and goes on with the same bits") {
    const StoppingSubject subject("gpt-oss-long");
    const int length = 700, chunk = subject.model.chunk();  // two layers, the first one sliding
    const auto undisturbed = subject.model.session(length);
    const auto expected = logits_after(*undisturbed, subject.golden.part(0, length));
    const auto session = subject.model.session(length);
    for (const bool scoring : {false, true})
        for (int piece = 0; piece < 3; ++piece)
            for (int layer = 0; layer < 2; ++layer) {
                CAPTURE(scoring, piece, layer);
                const int rows = std::min(chunk, length - piece * chunk);
                session->reset();
                AfterKeys::cancel(*session, piece * chunk * 2 + layer * rows);
                int scored = 0;
                const auto read = [&] {
                    const auto rest = subject.golden.part(session->position(), length - session->position());
                    if (scoring)
                        session->score(rest, [&](int, std::span<const float>) { ++scored; });
                    else
                        session->prefill(rest);
                };
                if (layer == 1 && piece == 2) {
                    read();  // no layer was left: it is complete, and the next call is the one that ends
                    CHECK(session->position() == length);
                    CHECK(same_bits(session->logits(), expected));
                    session->reset();
                    cancelled(read);
                    CHECK(session->position() == 0);
                } else {
                    cancelled(read);
                    CHECK(session->position() == (piece + layer) * chunk);
                    CHECK(scored == (scoring ? session->position() : 0));
                    if (session->position() > 0)
                        CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { session->logits(); }),
                                       {"not completed", "Append a token"}));
                }
                read();
                CHECK(same_bits(session->logits(), expected));
            }
}

TEST_CASE("a step that is cancelled in any layer is taken up again, and nothing is drawn meanwhile") {
    const StoppingSubject subject("gpt-oss-window");
    const int layers = subject.model.info().dims.layers, steps = 3 * layers;
    const auto start = [&] {
        auto session = subject.model.session(200);
        session->prefill(subject.golden.part(0, 150));
        session->set_sampling(hot, is_even);
        return session;
    };
    const auto undisturbed = start();
    const std::vector<std::int32_t> expected = reply(*undisturbed, steps);
    const auto session = start();
    for (int step = 0; step < steps; ++step) {
        CAPTURE(step);
        session->cancel();  // before anything is computed
        cancelled([&] { session->decode(); });
        if (step > 0) {
            // While the token drawn before is computed; by the last layer, just after.
            AfterKeys::cancel(*session, step % layers);
            cancelled([&] { session->decode(); });
        }
        CHECK(session->position() == 150 + step);
        CHECK(session->decode() == expected[static_cast<std::size_t>(step)]);
    }
    AfterKeys::cancel(*session, 0);
    cancelled([&] { session->logits(); });
    CHECK(same_bits(session->logits(), undisturbed->logits()));
    // A token that is owed is computed for whoever needs it, and forgotten by a reset.
    const auto branch = session->fork(session->position(), 200);
    CHECK(same_bits(branch->logits(), undisturbed->logits()));
    session->reset();
    CHECK(session->position() == 0);
}

TEST_CASE("a session that was cancelled knows which keys its ring lost to the piece that came to nothing") {
    const StoppingSubject subject("gpt-oss-long");
    const auto session = subject.model.session(4200);
    session->prefill(subject.golden.part(0, 768));
    AfterKeys::cancel(*session, 0);
    cancelled([&] { session->prefill(subject.golden.part(768, 232)); });
    CHECK(session->position() == 768);
    // Positions 0 to 999 went through the ring of 384.
    CHECK(contains(refusal(gg::ErrorCode::invalid_request, [&] { session->fork(742, 1000); }),
                   {"743 to 768", "found 742"}));
    const auto undisturbed = subject.model.session(4200);
    const auto expected = logits_after(*undisturbed, subject.golden.part(0, 900));
    for (const int tokens : {743, 768}) {
        const auto fork = session->fork(tokens, 1000);
        CHECK(same_bits(logits_after(*fork, subject.golden.part(tokens, 900 - tokens)), expected));
    }
    CHECK(same_bits(logits_after(*session, subject.golden.part(768, 132)), expected));
}

TEST_CASE("another thread cancels a prompt and a reply") {
    const Subject subject("gpt-oss-long", 2);
    const int length = 1500;
    const auto undisturbed = subject.session();
    undisturbed->prefill(subject.part(0, length));
    undisturbed->set_sampling(hot, {});
    const std::vector<float> expected(undisturbed->logits().begin(), undisturbed->logits().end());
    const std::vector<std::int32_t> ids = reply(*undisturbed, 200);

    /// Calls `step` until it has returned false, while another thread cancels from time to time; how often
    /// that ended it.
    const auto disturbed = [](gg::Session& session, const std::function<bool()>& step) {
        std::atomic<bool> over{false};
        std::thread other([&] {
            for (int i = 1; !over; ++i) {
                std::this_thread::sleep_for(microseconds(100 + 700 * (i % 7)));
                session.cancel();
                std::this_thread::sleep_for(microseconds(20000));  // time to come to something
            }
        });
        int ended = 0;
        for (bool more = true; more;) {
            try {
                more = step();
            } catch (const gg::Error& error) {
                CHECK(error.code() == gg::ErrorCode::cancelled);
                ++ended;
            }
        }
        over = true;
        other.join();
        return ended;
    };
    const auto session = subject.session();
    int ended = 0;
    for (int time = 0; time < 200 && ended < 5; ++time) {
        session->reset();
        ended += disturbed(*session, [&] {
            if (session->position() < length)
                session->prefill(subject.part(session->position(), length - session->position()));
            return false;
        });
        CHECK(session->position() % 256 == (session->position() == length ? length % 256 : 0));
        const auto finish = [&] {
            session->prefill(subject.part(session->position(), length - session->position()));
        };
        if (session->position() < length) {
            try {
                finish();
            } catch (const gg::Error&) {  // a cancel() that came after the end
                finish();
            }
        }
        CHECK(same_bits(session->logits(), expected));
    }
    CHECK(ended >= 5);

    session->set_sampling(hot, {});
    std::vector<std::int32_t> drawn;
    disturbed(*session, [&] {
        drawn.push_back(session->decode());
        return drawn.size() < ids.size();
    });
    CHECK(drawn == ids);
}

TEST_CASE("past its deadline a session computes nothing, and keeps what it has") {
    const Subject subject("gpt-oss-window");
    const auto undisturbed = subject.session();
    undisturbed->prefill(subject.part(0, 40));
    undisturbed->set_sampling(hot, {});
    const std::vector<std::int32_t> expected = reply(*undisturbed, 4);
    const auto session = subject.session();
    session->set_sampling(hot, {});
    session->set_deadline(Clock::now() + std::chrono::hours(1));
    session->prefill(subject.part(0, 40));
    CHECK(session->decode() == expected[0]);
    session->set_deadline(Clock::now());
    for (int time = 0; time < 2; ++time) {  // again and again, unlike cancel()
        const auto timed_out = [&](const std::function<void()>& action) {
            CHECK(contains(refusal(gg::ErrorCode::timeout, action), {"deadline", "stay"}));
        };
        timed_out([&] { session->decode(); });
        timed_out([&] { session->prefill(subject.part(0, 1)); });
        timed_out([&] { session->score(subject.part(0, 2), [](int, std::span<const float>) { FAIL(""); }); });
        CHECK(session->position() == 41);
    }
    session->set_deadline(gg::StopSignal::never);
    for (int i = 1; i < 4; ++i) CHECK(session->decode() == expected[static_cast<std::size_t>(i)]);
}

TEST_CASE("a deadline ends a prompt between its layers") {
    const Subject subject("gpt-oss-long");
    const auto session = subject.session();
    const auto deadline = Clock::now() + microseconds(3000);
    session->set_deadline(deadline);
    CHECK(contains(refusal(gg::ErrorCode::timeout,
                           [&] {
                               for (;;) {
                                   session->prefill(subject.tokens);
                                   session->reset();
                               }
                           }),
                   {"deadline"}));
    CHECK(Clock::now() >= deadline);
    CHECK(session->position() % 256 == 0);
    session->set_deadline(gg::StopSignal::never);
    const int done = session->position();
    session->prefill(subject.part(done, subject.length() - done));
    const auto undisturbed = subject.session();
    CHECK(same_bits(session->logits(), logits_after(*undisturbed, subject.tokens)));
}
