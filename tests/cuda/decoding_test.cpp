// Steps that draw and append: one session's, several sessions' together, forked sessions, and what becomes of
// the others when one of them fails.
#include <chrono>
#include <cstdio>
#include <thread>

#include "cuda/subject.hpp"
#include "gg/cuda/device_memory.hpp"
#include "host/subject.hpp"

using namespace cuda_test;
using gg::ErrorCode;
using gg::text::SamplerOptions;
using host_test::golden_model;

namespace {

using Ids = std::vector<std::int32_t>;

std::filesystem::path demo(const std::string& name) {
    return std::filesystem::path(GG_SOURCE_DIR) / "runner/demo" / (name + ".gguf");
}

constexpr int context = 200;

const SamplerOptions greedy{.temperature = 0.0F};
const SamplerOptions penalised{.repeat_penalty = 1.3F, .repeat_window = 20, .seed = 5};
const SamplerOptions all_ids{.temperature = 1.3F, .top_k = 0, .top_p = 1.0F, .min_p = 0.0F, .seed = 8};

/// A session with options, after a prompt that differs from number to number.
std::unique_ptr<gg::Session> start(const Subject& subject, const SamplerOptions& options, int number = 0,
                                   int size = context) {
    auto session = subject.session(size);
    session->set_sampling(options, {});
    session->prefill(subject.tokens(3 + 5 * number, static_cast<unsigned>(number)));
    return session;
}

Ids decode(gg::Session& session, int count) {
    Ids ids;
    for (int i = 0; i < count; ++i) ids.push_back(session.decode());
    return ids;
}

std::vector<float> logits_of(gg::Session& session) {
    const auto row = session.logits();
    return {row.begin(), row.end()};
}

/// Sessions that decode together, with the ids of each.
struct Group {
    explicit Group(const Subject& from) : subject(from) {}

    void add(const SamplerOptions& options, int number, int size = context) {
        sessions.push_back(start(subject, options, number, size));
        ids.emplace_back();
        errors.emplace_back();
    }
    /// Steps of all that have not failed.
    void steps(int count) {
        for (int i = 0; i < count; ++i) {
            std::vector<gg::Session*> going;
            std::vector<std::size_t> numbers;
            for (std::size_t n = 0; n < sessions.size(); ++n)
                if (!errors[n]) {
                    going.push_back(sessions[n].get());
                    numbers.push_back(n);
                }
            const std::vector<gg::Decoded> decoded = subject.model->decode(going);
            REQUIRE(decoded.size() == going.size());
            for (std::size_t k = 0; k < decoded.size(); ++k) {
                if (decoded[k].error)
                    errors[numbers[k]] = decoded[k].error->code();
                else
                    ids[numbers[k]].push_back(decoded[k].id);
            }
        }
    }

    const Subject& subject;
    std::vector<std::unique_ptr<gg::Session>> sessions;
    std::vector<Ids> ids;
    std::vector<std::optional<ErrorCode>> errors;
};

const SamplerOptions& options_of(int number) {
    return number % 3 == 0 ? greedy : number % 3 == 1 ? penalised : all_ids;
}

}  // namespace

TEST_CASE("decode draws and appends what drawing and appending apart do") {
    GG_NEED_GPU();
    for (const std::string name : {"demo-gpt2", "demo-gpt-oss"}) {
        const Subject subject(demo(name));
        const int many = repeats(40, 3), some = repeats(10, 2), few = repeats(5, 2);
        for (const SamplerOptions& options : {greedy, penalised, all_ids}) {
            CAPTURE(name, options.seed);
            const auto apart = start(subject, options), together = start(subject, options);
            CHECK(decode(*together, many) == host_test::reply(*apart, many));
            CHECK(together->position() == apart->position());
            CHECK(same_bits(Logits{logits_of(*together)}, Logits{logits_of(*apart)}));
            // A draw ahead is the next draw, whoever asks for it, and each draw is one step.
            CHECK(together->sample() == apart->sample());
            CHECK(together->sample() == apart->sample());
            CHECK(decode(*together, few) == host_test::reply(*apart, few));
            // Other tokens than those drawn ahead, by every way to append.
            for (const int count : {1, 5, 20}) {
                const auto tokens = subject.tokens(count, 77);
                together->prefill(tokens);
                apart->prefill(tokens);
                CHECK(decode(*together, few) == host_test::reply(*apart, few));
            }
            for (gg::Session* session : {together.get(), apart.get()}) {
                session->set_sampling(penalised, [](std::int32_t id) { return id % 2 == 0; });
            }
            CHECK(decode(*together, some) == host_test::reply(*apart, some));
            for (gg::Session* session : {together.get(), apart.get()}) {
                session->reset();
                session->prefill(subject.tokens(9, 78));
            }
            CHECK(decode(*together, some) == host_test::reply(*apart, some));
            CHECK(same_bits(Logits{logits_of(*together)}, Logits{logits_of(*apart)}));
        }
    }
}

// The sums of a step's products have another order with other rows beside, so logits differ as those of other
// chunks do, and where two draws are as good as equal, another id may come.
TEST_CASE("sessions decoded together write what each writes alone") {
    GG_NEED_GPU();
    int ids = 0, same = 0;
    const int steps = repeats(60, 2);
    for (const std::string name : {"demo-gpt2", "demo-gpt-oss"}) {
        const Subject subject(demo(name));
        Logits alone_rows, together_rows;
        CHECK(subject.model->batch() == 8);
        for (const int count : {1, 2, 3, 8}) {
            Group group(subject), again(subject);
            for (int n = 0; n < count; ++n) {
                group.add(options_of(n), n);
                again.add(options_of(n), n);
            }
            group.steps(steps);
            again.steps(steps);
            for (int n = 0; n < count; ++n) {
                const auto i = static_cast<std::size_t>(n);
                CAPTURE(name, count, n);
                REQUIRE(std::ssize(group.ids[i]) == steps);
                CHECK(again.ids[i] == group.ids[i]);
                const std::vector<float> together = logits_of(*group.sessions[i]);
                CHECK(same_bits(logits_of(*again.sessions[i]), together));
                const auto alone = start(subject, options_of(n), n);
                for (const std::int32_t id : group.ids[i]) {
                    ++ids;
                    same += alone->sample() == id;
                    alone->prefill({&id, 1});
                }
                if (count == 1) CHECK(same_bits(logits_of(*alone), together));
                alone_rows.push_back(logits_of(*alone));
                together_rows.push_back(together);
            }
        }
        const auto difference = differences(alone_rows, together_rows);
        std::printf("%-14s decoded together: log-probability: median %.1e max %.1e\n", name.c_str(),
                    difference.median(), difference.max());
        CHECK(difference.median() <= 1e-3);
    }
    std::printf("decoded together: %d of %d ids as alone\n", same, ids);
    CHECK(100 * same >= 99 * ids);
}

TEST_CASE("sessions may join and leave a group, and compute apart in between") {
    GG_NEED_GPU();
    const Subject subject(demo("demo-gpt-oss"));
    const int steps = repeats(5, 1);
    Group group(subject);
    for (int n = 0; n < 3; ++n) group.add(options_of(n), n);
    group.steps(steps);
    group.ids[1].push_back(group.sessions[1]->decode());
    group.steps(steps);
    group.add(options_of(3), 3);
    group.steps(steps);
    group.sessions.erase(group.sessions.begin());
    group.ids.erase(group.ids.begin());
    group.errors.erase(group.errors.begin());
    group.steps(steps);
    start(subject, greedy, 7)->decode();  // another one, which goes at once
    group.steps(steps);
    CHECK(group.ids[0] == decode(*start(subject, options_of(1), 1), 5 * steps + 1));
    CHECK(group.ids[1] == decode(*start(subject, options_of(2), 2), 5 * steps));
    CHECK(group.ids[2] == decode(*start(subject, options_of(3), 3), 3 * steps));
}

TEST_CASE("a session that fails in a group leaves the others' text as it is") {
    GG_NEED_GPU();
    const Subject subject(demo("demo-gpt-oss"));
    const int steps = repeats(10, 3), more = repeats(5, 1);
    Group group(subject);
    group.add(greedy, 0);
    group.add(penalised, 1, 8 + steps + 2);  // room for two tokens more than the first steps
    group.add(all_ids, 2);
    group.add(greedy, 3);
    group.steps(steps);
    CHECK_FALSE(group.errors[1]);
    group.sessions[2]->cancel();
    group.steps(1);
    CHECK(group.errors[2] == ErrorCode::cancelled);
    group.steps(steps - 1);
    CHECK(group.errors[1] == ErrorCode::context_full);
    CHECK(std::ssize(group.ids[1]) == steps + 2);
    group.sessions[3]->set_deadline(gg::StopSignal::Clock::now());
    group.steps(steps);
    CHECK(group.errors[3] == ErrorCode::timeout);
    CHECK_FALSE(group.errors[0]);
    const auto alone = [&](int n, const SamplerOptions& options, int count) {
        return decode(*start(subject, options, n), count);
    };
    CHECK(group.ids[0] == alone(0, greedy, 3 * steps));
    CHECK(group.ids[1] == alone(1, penalised, steps + 2));
    CHECK(group.ids[2] == alone(2, all_ids, steps));
    CHECK(group.ids[3] == alone(3, greedy, 2 * steps));
    // Those that were stopped go on where they were.
    group.sessions[3]->set_deadline(gg::StopSignal::never);
    for (const std::size_t n : {std::size_t{2}, std::size_t{3}}) group.errors[n].reset();
    group.steps(more);
    CHECK(group.ids[2] == alone(2, all_ids, steps + more));
    CHECK(group.ids[3] == alone(3, greedy, 2 * steps + more));
}

TEST_CASE("a session is cancelled from another thread within a token") {
    GG_NEED_GPU();
    const Subject subject(golden_model("llama-long"));
    const auto session = start(subject, greedy, 0, 4000);
    Ids ids;
    std::thread other([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        session->cancel();
    });
    const std::string message = refusal(ErrorCode::cancelled, [&] {
        while (ids.size() < 3900) ids.push_back(session->decode());
    });
    other.join();
    CAPTURE(message, ids.size());
    CHECK(message.find("cancel") != message.npos);
    CHECK(session->position() == 3 + std::ssize(ids));
    ids.push_back(session->decode());
    CHECK(ids == decode(*start(subject, greedy, 0, 4000), static_cast<int>(ids.size())));

    // While a prompt is read: between two chunks.
    const auto tokens = subject.tokens(4000, 9);
    const auto reader = subject.session(4000);
    reader->cancel();
    refusal(ErrorCode::cancelled, [&] { reader->prefill(tokens); });
    CHECK(reader->position() == 0);
    reader->prefill(tokens);
    CHECK(reader->position() == 4000);
    CHECK(same_bits(Logits{logits_of(*reader)}, prefill(*subject.session(4000), tokens, {4000})));
}

TEST_CASE("a forked session on a GPU goes on as one that read the prefix itself") {
    GG_NEED_GPU();
    struct Case {
        const char* name;
        int read, fork, rest, context;
        std::vector<int> sizes;  ///< pieces of the prefix
    };
    for (const Case& test : std::vector<Case>{{"gpt2-half", 40, 40, 20, 64, {40}},
                                              {"gpt2-half", 40, 17, 20, 40, {17, 23}},
                                              {"llama-320", 30, 30, 12, 50, {30}},
                                              {"gpt-oss-window", 290, 290, 9, 300, {200, 90}},
                                              {"gpt-oss-window", 290, 200, 20, 230, {200, 90}},
                                              {"gpt-oss-long", 4100, 4100, 20, 4200, {2048, 2048, 4}},
                                              {"gpt-oss-long", 4100, 4096, 20, 4120, {2048, 2048, 4}},
                                              {"gpt-oss-long", 2100, 2048, 20, 2100, {2048, 52}}}) {
        const Subject subject(golden_model(test.name));
        const auto tokens = subject.tokens(test.read), rest = subject.tokens(test.rest, 5);
        CAPTURE(test.name, test.fork);
        const auto source = subject.session(subject.model->info().dims.context);
        const Logits read = prefill(*source, tokens, test.sizes);
        const auto forked = source->fork(test.fork, test.context);
        CHECK(forked->position() == test.fork);
        CHECK(forked->context() == test.context);
        const auto itself = subject.session(test.context);
        prefill(*itself, std::span(tokens).first(static_cast<std::size_t>(test.fork)), test.sizes);
        if (test.fork == test.read)
            CHECK(same_bits(Logits{logits_of(*forked)}, Logits{logits_of(*itself)}));
        else
            refusal(ErrorCode::invalid_request, [&] { forked->logits(); });
        // The source goes on, and is not seen by the fork.
        source->prefill(subject.tokens(3, 6));
        CHECK(same_bits(prefill(*forked, rest, {9, 1}), prefill(*itself, rest, {9, 1})));
        forked->set_sampling(greedy, {});
        CHECK(forked->sample() >= 0);
    }
}

TEST_CASE("a fork that cannot be is refused") {
    GG_NEED_GPU();
    const Subject subject(golden_model("gpt-oss-long"));
    const auto session = subject.session(4200);
    session->prefill(subject.tokens(4000));
    for (const auto& [tokens, size] : std::vector<std::pair<int, int>>{
             {4001, 4200}, {0, 4200}, {-1, 4200}, {4000, 3999}, {4000, 10000000}, {1500, 4200}}) {
        CAPTURE(tokens, size);
        const std::string message = refusal(ErrorCode::invalid_request, [&] { session->fork(tokens, size); });
        CHECK_FALSE(message.empty());
    }
    CHECK(session->fork(3000, 3000)->position() == 3000);
}

TEST_CASE("sessions that come and go leave the GPU's memory where it was", "[alone]") {
    GG_NEED_GPU();
    const Subject subject(demo("demo-gpt2"));
    const auto free_bytes = [] {
        std::size_t free = 0, total = 0;
        REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
        return free;
    };
    Ids first;
    const auto once = [&] {
        const auto session = start(subject, penalised, 2);
        const Ids ids = decode(*session, 3);
        const auto forked = session->fork(session->position(), context);
        if (first.empty()) first = ids;
        REQUIRE(ids == first);
    };
    for (int i = 0; i < 3; ++i) once();
    const std::size_t before = free_bytes();
    for (int i = 0; i < repeats(1000, 10); ++i) once();
    CHECK(free_bytes() == before);
}

TEST_CASE("a session that does not fit into the GPU's memory leaves the others alone", "[alone]") {
    GG_NEED_GPU();
    const Subject subject(golden_model("gpt-oss-long"));
    const auto session = start(subject, greedy, 0, 4200);
    Ids ids = decode(*session, 10);
    {
        std::size_t free = 0, total = 0;
        REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
        constexpr std::size_t left = std::size_t{16} << 20;
        REQUIRE(free > 2 * left);
        const gg::cuda::DeviceBuffer<unsigned char> others(free - left, "what others took");
        const std::string message = refusal(ErrorCode::out_of_memory, [&] { subject.session(131072); });
        CAPTURE(message);
        CHECK(message.find("bytes") != message.npos);
        for (const std::int32_t id : decode(*session, 10)) ids.push_back(id);
    }
    for (const std::int32_t id : decode(*session, 10)) ids.push_back(id);
    CHECK(ids == decode(*start(subject, greedy, 0, 4200), 30));
    CHECK(subject.session(131072)->context() == 131072);
}
