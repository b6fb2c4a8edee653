// Sessions on a GPU: the same bits whenever the same pieces are computed, whoever computes in between;
// prompts of every length; refusals that change nothing; memory as foretold.
#include <cstdio>
#include <limits>
#include <stdexcept>

#include "cuda/subject.hpp"
#include "gg/cuda/device.hpp"
#include "gg/cuda/memory_plan.hpp"

using namespace cuda_test;
using host_test::Golden;
using host_test::golden_model;

namespace {

/// One model of each family; the least context among them is 64.
const std::vector<std::string> families = {"gpt2-half", "llama-320", "gpt-oss-mxfp4"};
constexpr int context = 64;
const int runs = repeats(10, 2);

/// Pieces for the kernels of prefill, for single tokens and for the fused stages' eight rows.
const std::vector<int> mixed = {17, 1, 8, 1, 9, 2}, mixed_otherwise = {1, 1, 20, 7, 1, 10, 3};

constexpr double median_bound = 1e-3;  ///< as golden_test.cpp explains it

void ignore(int, std::span<const float>) {}

/// Scores pieces that go through the kernels of prefill and appends the others; logits where there are any.
Logits score_or_prefill(gg::Session& session, std::span<const std::int32_t> tokens,
                        const std::vector<int>& sizes) {
    Logits all;
    for (std::size_t i = 0, at = 0; at < tokens.size(); ++i) {
        const auto size = static_cast<std::size_t>(sizes[i % sizes.size()]);
        const auto piece = tokens.subspan(at, std::min(size, tokens.size() - at));
        at += piece.size();
        if (piece.size() > 8) {
            for (std::vector<float>& row : score(session, piece)) all.push_back(std::move(row));
        } else {
            session.prefill(piece);
            const auto row = session.logits();
            all.resize(at);
            all.back().assign(row.begin(), row.end());
        }
    }
    return all;
}

/// Log-probabilities of the tokens that come next, against the golden's.
host_test::Differences next_tokens(const Logits& logits, const Golden& golden) {
    host_test::Differences found;
    for (std::size_t i = 0; i < golden.logprob.size(); ++i)
        if (!logits[i].empty())
            found.add(log_probabilities(logits[i])[static_cast<std::size_t>(golden.tokens[i + 1])],
                      golden.logprob[i]);
    return found;
}

}  // namespace

TEST_CASE("the same pieces give the same bits in ten runs") {
    GG_NEED_GPU();
    for (const std::string& name : families) {
        const Subject subject(golden_model(name));
        const std::vector<std::int32_t> tokens = subject.tokens(repeats(context, 27));
        CAPTURE(name);
        for (const std::vector<int>& sizes : {mixed, mixed_otherwise, {1}, {8}, {context}}) {
            CAPTURE(sizes[0], sizes.size());
            const Logits expected = prefill(*subject.session(context), tokens, sizes);
            REQUIRE(expected.size() == pieces_of(tokens, sizes).size());
            for (int run = 1; run < runs; ++run)
                CHECK(same_bits(prefill(*subject.session(context), tokens, sizes), expected));
        }
        const Logits rows = score(*subject.session(context), tokens);
        REQUIRE(rows.size() == tokens.size());
        CHECK_FALSE(same_bits(rows[0], rows[1]));
        for (int run = 1; run < runs; ++run) CHECK(same_bits(score(*subject.session(context), tokens), rows));
    }
}

TEST_CASE("the context of a session on a GPU does not change a bit") {
    GG_NEED_GPU();
    for (const std::string& name : families) {
        const Subject subject(golden_model(name));
        const auto tokens = subject.tokens(40);
        const auto one = std::span(tokens).first(1);
        CAPTURE(name);
        CHECK(same_bits(prefill(*subject.session(40), tokens, mixed),
                        prefill(*subject.session(context), tokens, mixed)));
        CHECK(same_bits(score(*subject.session(40), tokens), score(*subject.session(context), tokens)));
        CHECK(
            same_bits(prefill(*subject.session(1), one, {1}), prefill(*subject.session(context), one, {1})));
        CHECK(same_bits(score(*subject.session(1), one), score(*subject.session(context), one)));
    }
}

TEST_CASE("sessions that take turns on a GPU equal sessions alone") {
    GG_NEED_GPU();
    for (const std::string& name : families) {
        const Subject subject(golden_model(name));
        const auto tokens = subject.tokens(context, 1), others = subject.tokens(context, 2);
        const Logits alone = prefill(*subject.session(context), tokens, mixed);
        const Logits alone_others = prefill(*subject.session(context), others, mixed_otherwise);
        const auto pieces = pieces_of(tokens, mixed), other_pieces = pieces_of(others, mixed_otherwise);
        const auto first = subject.session(context), second = subject.session(context);
        CAPTURE(name);
        for (std::size_t i = 0; i < std::max(pieces.size(), other_pieces.size()); ++i) {
            CAPTURE(i);
            if (i < pieces.size()) first->prefill(pieces[i]);
            if (i < other_pieces.size()) second->prefill(other_pieces[i]);
            // Asked for after the other computed; and once more, after the other was asked.
            for (int time = 0; time < 2; ++time) {
                CHECK(same_bits(first->logits(), alone[std::min(i, alone.size() - 1)]));
                CHECK(same_bits(second->logits(), alone_others[std::min(i, alone_others.size() - 1)]));
            }
        }
        CHECK(first->position() == context);
        CHECK(second->position() == context);
    }
}

TEST_CASE("logits stay while other sessions are made, compute and go") {
    GG_NEED_GPU();
    for (const std::string& name : families) {
        const Subject subject(golden_model(name));
        const auto tokens = subject.tokens(24);
        CAPTURE(name);
        const auto session = subject.session(24);
        // After scoring, and after each way to append.
        for (const int count : {20, 12, 5, 1}) {
            CAPTURE(count);
            session->reset();
            const auto part = std::span(tokens).first(static_cast<std::size_t>(count));
            if (count == 20)
                session->score(part, ignore);
            else
                session->prefill(part);
            const auto now = session->logits();
            const std::vector<float> expected(now.begin(), now.end());
            // Prompts of a longer context take a larger workspace.
            auto longer = subject.session(count == 20 ? 40 : context);
            CHECK(same_bits(session->logits(), expected));
            longer->prefill(subject.tokens(30, 7));
            CHECK(same_bits(session->logits(), expected));
            longer->score(subject.tokens(10, 8), ignore);
            longer->reset();
            CHECK(same_bits(session->logits(), expected));
            longer.reset();
            CHECK(same_bits(session->logits(), expected));
            session->set_sampling({.temperature = 0.0F}, {});
            CHECK(session->sample() == std::max_element(expected.begin(), expected.end()) - expected.begin());
        }
    }
}

TEST_CASE("a reset session on a GPU gives the same bits, whatever it computed before") {
    GG_NEED_GPU();
    for (const std::string& name : families) {
        const Subject subject(golden_model(name));
        const auto tokens = subject.tokens(50, 1), others = subject.tokens(context, 2);
        const Logits alone = prefill(*subject.session(context), tokens, mixed);
        const auto session = subject.session(context);
        CAPTURE(name);
        for (int time = 0; time < 2; ++time) {
            session->prefill(others);
            CHECK(session->position() == context);
            session->reset();
            CHECK(session->position() == 0);
            refusal(gg::ErrorCode::invalid_request, [&] { session->logits(); });
            CHECK(same_bits(prefill(*session, tokens, mixed), alone));
            session->reset();
        }
    }
}

TEST_CASE("a refused call leaves a session on a GPU as it was") {
    GG_NEED_GPU();
    for (const std::string& name : families) {
        const Subject subject(golden_model(name));
        const auto tokens = subject.tokens(20);
        const std::vector<int> sizes = {15, 1};
        const Logits expected = prefill(*subject.session(20), tokens, sizes);
        const int vocabulary = subject.vocabulary();
        const auto session = subject.session(20);
        CHECK(session->context() == 20);
        session->prefill(std::span(tokens).first(15));
        const auto by_both = [&](gg::ErrorCode code, const std::vector<std::int32_t>& refused,
                                 const std::string& part) {
            const std::string message = refusal(code, [&] { session->prefill(refused); });
            CAPTURE(name, message);
            CHECK(message.find(part) != message.npos);
            CHECK(refusal(code, [&] {
                      session->score(refused, [](int, std::span<const float>) { FAIL("it computed"); });
                  }) == message);
            CHECK(session->position() == 15);
            CHECK(same_bits(session->logits(), expected[0]));
        };
        by_both(gg::ErrorCode::invalid_request, {}, "at least one");
        by_both(gg::ErrorCode::invalid_request, {1, vocabulary, 2}, "token 1");
        by_both(gg::ErrorCode::invalid_request, {1, 2, -1}, "found -1");
        by_both(gg::ErrorCode::invalid_request, {std::numeric_limits<std::int32_t>::min()}, "token 0");
        by_both(gg::ErrorCode::context_full, std::vector<std::int32_t>(6, 1), "15 of 20");
        by_both(gg::ErrorCode::context_full, std::vector<std::int32_t>(3000, 1), "15 of 20");
        // The rest fits to the last token, and comes out as if nothing had been asked in between.
        const Logits rest = prefill(*session, std::span(tokens).subspan(15), {1});
        CHECK(same_bits(rest, Logits(expected.begin() + 1, expected.end())));
        refusal(gg::ErrorCode::context_full, [&] { session->prefill(std::span(tokens).first(1)); });
        CHECK(same_bits(session->logits(), expected.back()));
    }
}

TEST_CASE("a model on a GPU makes sessions of its context at most") {
    GG_NEED_GPU();
    const Subject subject(golden_model("gpt2-half"));
    CHECK(subject.session(context)->context() == context);
    for (const int refused : {context + 1, 0, -1, std::numeric_limits<int>::max()}) {
        const std::string message =
            refusal(gg::ErrorCode::invalid_request, [&] { subject.session(refused); });
        CAPTURE(message);
        CHECK(message.find("1 to 64") != message.npos);
    }
}

TEST_CASE("a call of score that was left leaves no logits") {
    GG_NEED_GPU();
    const Subject subject(golden_model("llama-320"));
    const auto tokens = subject.tokens(40);
    const auto session = subject.session(40);
    refusal(gg::ErrorCode::invalid_request, [&] { session->logits(); });
    session->prefill(std::span(tokens).first(1));
    CHECK_THROWS_AS(session->score(std::span(tokens).subspan(1, 20),
                                   [](int row, std::span<const float>) {
                                       if (row == 2) throw std::runtime_error("enough");
                                   }),
                    std::runtime_error);
    const std::string message = refusal(gg::ErrorCode::invalid_request, [&] { session->logits(); });
    CHECK(message.find("not completed") != message.npos);
    session->set_sampling({.temperature = 0.0F}, {});
    CHECK(refusal(gg::ErrorCode::invalid_request, [&] { session->sample(); }) == message);
    session->reset();
    CHECK(same_bits(prefill(*session, tokens, mixed), prefill(*subject.session(40), tokens, mixed)));
}

// A product's sums have the order of its tiling, which its rows decide: those of up to 32 rows agree. Rows
// are scored 64 at a time.
TEST_CASE("prompts of every length give the logits that scoring gives last") {
    GG_NEED_GPU();
    for (const std::string name : {"llama-320", "gpt-oss-window"}) {
        const Subject subject(golden_model(name));
        const auto tokens = subject.tokens(300);
        CAPTURE(name);
        for (const int count : {1, 2, 8, 9, 16, 32, 33, 64, 65, 96, 128, 300}) {
            const auto part = std::span(tokens).first(static_cast<std::size_t>(count));
            const auto appending = subject.session(301), scoring = subject.session(301);
            const Logits last = prefill(*appending, part, {count}), rows = score(*scoring, part);
            CAPTURE(count);
            CHECK(appending->position() == count);
            CHECK(scoring->position() == count);
            REQUIRE(std::ssize(rows) == count);
            CHECK(same_bits(scoring->logits(), rows.back()));
            const host_test::Differences difference = differences(last, {rows.back()});
            CAPTURE(difference.median());
            CHECK(difference.median() <= median_bound);
            if (count > 8 && (count - 1) % 64 < 32) CHECK(same_bits(last[0], rows.back()));
            // What follows does not depend on who computed the logits of what came before.
            appending->prefill(std::span(tokens).first(1));
            scoring->prefill(std::span(tokens).first(1));
            if (count > 8) CHECK(same_bits(appending->logits(), scoring->logits()));
        }
    }
}

TEST_CASE("a prompt of several chunks equals its chunks") {
    GG_NEED_GPU();
    gg::cuda::LoadOptions options;
    options.longest_step = 2048;
    const Subject subject(golden_model("llama-long"), options);
    const int chunk = subject.model->chunk();
    REQUIRE(chunk == 2048);
    const auto tokens = subject.tokens(2 * chunk + 60);
    const auto first = [&](int count) { return std::span(tokens).first(static_cast<std::size_t>(count)); };
    for (const int rest : {1, 5, 8, 9, 60, chunk, chunk + 3}) {
        const int count = chunk + rest;
        const auto whole = subject.session(count), cut = subject.session(count);
        whole->prefill(first(count));
        CAPTURE(rest);
        CHECK(whole->position() == count);
        CHECK(same_bits(whole->logits(), prefill(*cut, first(count), {chunk}).back()));
    }
    const auto whole = subject.session(chunk + 60), cut = subject.session(chunk + 60);
    const Logits rows = score(*whole, first(chunk + 60));
    Logits in_chunks = score(*cut, first(chunk));
    for (auto& row : score(*cut, first(chunk + 60).subspan(static_cast<std::size_t>(chunk))))
        in_chunks.push_back(std::move(row));
    CHECK(same_bits(rows, in_chunks));
}

// gpt-oss-long has a window of 128, and its ring is appended 2048 tokens at a time. A step of more tokens may
// choose other tilings, so that sums have another order, and an expert that is as good as another.
TEST_CASE("a step longer than a ring's chunk equals steps of one chunk") {
    GG_NEED_GPU();
    const Subject subject(golden_model("gpt-oss-long"));
    REQUIRE(subject.model->chunk() == 8192);
    const auto tokens = subject.tokens(8000);
    for (const int count : {2049, 5000, 7000}) {
        const auto part = std::span(tokens).first(static_cast<std::size_t>(count));
        // From the beginning, and behind tokens that end within a tile.
        for (const int before : {0, 333}) {
            const auto whole = subject.session(8000), cut = subject.session(8000);
            const auto rest = std::span(tokens).last(static_cast<std::size_t>(before));
            for (const auto* session : {&whole, &cut})
                if (before > 0) (*session)->prefill(rest);
            const Logits rows = score(*whole, part);
            Logits expected;
            for (const auto piece : pieces_of(part, {2048}))
                for (auto& row : score(*cut, piece)) expected.push_back(std::move(row));
            REQUIRE(std::ssize(rows) == count);
            REQUIRE(std::ssize(expected) == count);
            int far = 0;
            for (int i = 0; i < count; ++i) {
                const auto row = static_cast<std::size_t>(i);
                far += differences({rows[row]}, {expected[row]}).median() > median_bound;
            }
            std::printf("gpt-oss-long     a step of %d behind %d: %d rows are far from those of its chunks\n",
                        count, before, far);
            CAPTURE(count, before);
            CHECK(far <= count / 100);
            // What lies in the caches serves the next tokens alike.
            const auto more = std::span(tokens).subspan(7900, 20);
            CHECK(differences(prefill(*whole, more, {17, 1}), prefill(*cut, more, {17, 1})).median() <=
                  median_bound);
        }
    }
}

TEST_CASE("pieces of every kind equal the goldens beyond the window and around the ring") {
    GG_NEED_GPU();
    struct Case {
        const char* name;
        std::vector<std::vector<int>> sizes;
    };
    // gpt-oss-long's ring holds 2176 positions of its 4200.
    for (const Case& test : std::vector<Case>{
             {"gpt-oss-window", {{repeats(1, 150)}, {8}, {7}, {129}, {200, 1, 1, 1, 8, 3}, {9, 1, 40, 2}}},
             {"gpt-oss-long", {{700, 1, 8, 129, 3, 1}, {2048, 1, 2, 300, 8}, {4100, 1, 8}}}}) {
        const Golden golden = host_test::read_golden(test.name);
        const Subject subject(golden_model(test.name));
        for (const std::vector<int>& sizes : test.sizes) {
            const auto session = subject.session(static_cast<int>(golden.tokens.size()));
            const Logits rows = score_or_prefill(*session, golden.tokens, sizes);
            REQUIRE(rows.size() == golden.tokens.size());
            const host_test::Differences found = next_tokens(rows, golden);
            std::printf("%-16s pieces of %4d, ...: next: median %.1e max %.1e of %zu\n", test.name, sizes[0],
                        found.median(), found.max(), found.count());
            CAPTURE(test.name, sizes[0], sizes.size(), found.median(), found.max());
            CHECK(found.count() * 8 + 8 >= golden.logprob.size());
            CHECK(found.median() <= median_bound);
        }
    }
}

TEST_CASE("steps become shorter where more sessions would not fit") {
    GG_NEED_GPU();
    const gg::cuda::DeviceInfo device = gg::cuda::find_devices().at(0);
    const auto path = golden_model("llama-long");
    const auto planner = gg::cuda::MemoryPlanner::of(gg::gguf::File::open(path),
                                                     {device.architecture(), device.multiprocessors});
    // Twelve sessions fit exactly, with steps of 512.
    const int length = planner.dims().context, most = 12;
    const gg::MemoryPlan without_limit = planner.plan(length, most);
    gg::cuda::LoadOptions options;
    options.memory_limit = without_limit.total() - without_limit.reading + planner.reading_bytes(512);
    const Subject subject(path, options);
    std::vector<std::unique_ptr<gg::Session>> sessions;
    std::vector<int> steps = {subject.model->chunk()};
    for (int count = 1; count <= most; ++count) {
        CAPTURE(count);
        CHECK(subject.model->session_bytes(length) <= *subject.model->available_bytes());
        sessions.push_back(subject.session(length));
        CHECK(subject.model->chunk() == planner.plan(length, count, options.memory_limit).step);
        CHECK(subject.model->chunk() <= steps.back());
        steps.push_back(subject.model->chunk());
    }
    CHECK(steps[1] == steps[0]);
    CHECK(steps[1] > 2048);
    CHECK(steps.back() == 512);
    refusal(gg::ErrorCode::out_of_memory, [&] { subject.session(length); });
    // All go on, with the same bits as in pieces of that length.
    const auto tokens = subject.tokens(2 * 512 + 60);
    sessions[0]->prefill(tokens);
    CHECK(same_bits(sessions[0]->logits(), prefill(*sessions[1], tokens, {512}).back()));
    // Room again: steps are as long as they were.
    sessions.clear();
    const auto session = subject.session(length);
    CHECK(subject.model->chunk() == steps[0]);
}

TEST_CASE("a session takes the GPU memory that was foretold", "[alone]") {
    GG_NEED_GPU();
    struct Case {
        const char* name;
        int context;
    };
    for (const Case& test : {Case{"gpt2-half", 64}, Case{"llama-long", 8192}, Case{"gpt-oss-long", 131072}}) {
        const Subject subject(golden_model(test.name));
        const auto free_bytes = [] {
            std::size_t free = 0, total = 0;
            REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
            return static_cast<std::uint64_t>(free);
        };
        CHECK(subject.model->memory_name() == "GPU memory");
        const std::uint64_t foretold = subject.model->session_bytes(test.context), before = free_bytes();
        REQUIRE(subject.model->available_bytes());
        CHECK(*subject.model->available_bytes() < before);
        {
            const auto session = subject.session(test.context);
            const auto tokens = subject.tokens(std::min(test.context, 3000) - 1);
            session->set_sampling({.top_k = 0, .repeat_penalty = 1.1F},
                                  [](std::int32_t id) { return id == 1; });
            session->prefill(std::span(tokens).first(tokens.size() - 3));
            session->prefill(std::span(tokens).last(3));
            CHECK(session->sample() == 1);
            session->reset();
            session->score(tokens, ignore);
            const std::uint64_t now = free_bytes(), taken = before > now ? before - now : 0;
            std::printf("%-16s context %6d: foretold %9llu bytes, taken %9llu\n", test.name, test.context,
                        static_cast<unsigned long long>(foretold), static_cast<unsigned long long>(taken));
            CAPTURE(test.name, foretold, taken);
            CHECK(taken <= foretold);
        }
        // The workspace for prompts stays with the model: another session takes only what is its own.
        CHECK(subject.model->session_bytes(test.context) <= foretold);
    }
}
