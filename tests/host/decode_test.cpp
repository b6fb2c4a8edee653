// Steps of sessions, alone and several together: the ids of drawing and appending by two calls, whoever else
// fails.
#include "catch.hpp"
#include "refusal.hpp"
#include "subject.hpp"

using namespace host_test;
using gg_test::refusal;

namespace {

std::unique_ptr<gg::Session> started(const Subject& subject, int first, int tokens, int context) {
    auto session = subject.model->session(context);
    session->prefill(subject.part(first, tokens));
    session->set_sampling(hot, is_even);
    return session;
}

}  // namespace

TEST_CASE("decode draws and appends") {
    for (const std::string& name : families) {
        const Subject subject(name);
        CAPTURE(name);
        const auto two_calls = started(subject, 0, 20, 36), one_call = started(subject, 0, 20, 36);
        for (const std::int32_t id : reply(*two_calls, 16)) CHECK(one_call->decode() == id);
        CHECK(one_call->position() == 36);
        CHECK(same_bits(one_call->logits(), two_calls->logits()));
        // Full: nothing is drawn, so the next draw is as without the refused one.
        CHECK(contains(refusal(gg::ErrorCode::context_full, [&] { one_call->decode(); }), {"36 of 36"}));
        for (int i = 0; i < 3; ++i) CHECK(one_call->sample() == two_calls->sample());
    }
}

TEST_CASE("decode is refused without options, without a token, and without logits") {
    const Subject subject("llama-320");
    const auto session = subject.session();
    const auto refused = [&] { return refusal(gg::ErrorCode::invalid_request, [&] { session->decode(); }); };
    CHECK(contains(refused(), {"set_sampling"}));
    session->set_sampling(hot, {});
    CHECK(contains(refused(), {"one token"}));
    const auto leave = [](int, std::span<const float>) { throw std::runtime_error("enough"); };
    CHECK_THROWS_AS(session->score(subject.part(0, 2), leave), std::runtime_error);
    CHECK(contains(refused(), {"not completed"}));
    CHECK(session->position() == 2);
    const auto expected = started(subject, 0, 3, 10);
    expected->set_sampling(hot, {});
    session->prefill(subject.part(2, 1));
    CHECK(session->decode() == expected->decode());
}

TEST_CASE("sessions decoded together draw what each draws alone, though others fail") {
    for (const std::string& name : families) {
        const Subject subject(name);
        CAPTURE(name);
        constexpr int steps = 9;
        // Of different lengths; the third has room for four steps.
        const auto make = [&](int i) { return started(subject, i, 10 + 7 * i, i == 2 ? 28 : 60); };
        std::vector<std::vector<std::int32_t>> alone;
        for (int i = 0; i < 5; ++i) alone.push_back(reply(*make(i), i == 2 ? 4 : steps));
        std::vector<std::unique_ptr<gg::Session>> sessions;
        std::vector<gg::Session*> batch;
        for (int i = 0; i < 5; ++i) batch.push_back(sessions.emplace_back(make(i)).get());
        const auto bare = subject.session();  // nothing to draw from
        batch.push_back(bare.get());
        std::vector<std::vector<std::int32_t>> together(5);
        for (int step = 0; step < steps; ++step) {
            if (step == 3) sessions[1]->cancel();
            const std::vector<gg::Decoded> decoded = subject.model->decode(batch);
            REQUIRE(decoded.size() == batch.size());
            for (std::size_t i = 0; i < 5; ++i) {
                CAPTURE(step, i);
                const gg::Decoded& one = decoded[i];
                const bool cancelled = i == 1 && step == 3, full = i == 2 && step >= 4;
                REQUIRE(one.error.has_value() == (cancelled || full));
                if (cancelled) CHECK(one.error->code() == gg::ErrorCode::cancelled);
                if (full) CHECK(one.error->code() == gg::ErrorCode::context_full);
                CHECK((one.id >= 0) == !one.error.has_value());
                if (!one.error) together[i].push_back(one.id);
            }
            REQUIRE(decoded[5].error.has_value());
            CHECK(decoded[5].error->code() == gg::ErrorCode::invalid_request);
        }
        const gg::Decoded caught_up = subject.model->decode(std::span(batch).subspan(1, 1))[0];
        together[1].push_back(caught_up.id);
        for (std::size_t i = 0; i < 5; ++i) {
            CAPTURE(i);
            CHECK(together[i] == alone[i]);
        }
        CHECK(sessions[2]->position() == 28);
    }
}

TEST_CASE("decoding together is refused for none, too many, one twice, and another model's") {
    const Subject subject("llama-320"), same_family("llama-320"), other_family("gpt2-half");
    const int most = subject.model->batch();
    CHECK(most >= 1);
    std::vector<std::unique_ptr<gg::Session>> sessions;
    std::vector<gg::Session*> all;
    for (int i = 0; i < most + 1; ++i) all.push_back(sessions.emplace_back(started(subject, 0, 5, 10)).get());
    const auto refused = [&](std::span<gg::Session* const> batch) {
        const std::string message =
            refusal(gg::ErrorCode::invalid_request, [&] { subject.model->decode(batch); });
        for (const auto& session : sessions) CHECK(session->position() == 5);
        return message;
    };
    CHECK(contains(refused({}), {"1 to " + std::to_string(most), "found 0"}));
    CHECK(contains(refused(all), {"1 to " + std::to_string(most), "found " + std::to_string(most + 1)}));
    for (const Subject* other : {&same_family, &other_family}) {
        const auto foreign = started(*other, 0, 5, 10);
        const std::vector<gg::Session*> batch = {all[0], foreign.get()};
        CHECK(contains(refused(batch), {"session 1", "not one of this model"}));
        CHECK(foreign->position() == 5);
    }
    CHECK(contains(refused(std::vector<gg::Session*>{nullptr}), {"session 0", "not one of this model"}));
    CHECK(contains(refused(std::vector<gg::Session*>{all[0], all[1], all[0]}), {"session 2", "twice"}));
    const auto decoded = subject.model->decode(std::span(all).first(static_cast<std::size_t>(most)));
    for (const gg::Decoded& one : decoded) CHECK(one.id == decoded[0].id);  // all alike
}
