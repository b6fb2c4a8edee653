// A model that notes when its kernels run computes the same, and its notes are of the chain's kernels.
#include "gg/cuda/stage_log.hpp"

#include "cuda/subject.hpp"

using namespace cuda_test;
using gg::cuda::LaunchTimes;

namespace {

/// Logits after a token appended to a short prompt.
std::vector<float> after_one(gg::Session& session, std::int32_t token) {
    session.prefill({&token, 1});
    const auto row = session.logits();
    return {row.begin(), row.end()};
}

void check_times(const LaunchTimes& launch) {
    INFO(launch.name);
    CHECK(launch.blocks > 0);
    CHECK((launch.crowd >= 1 && launch.crowd <= launch.blocks));
    CHECK(launch.begin <= launch.waited);
    CHECK(launch.waited <= launch.first_end);
    CHECK(launch.first_end <= launch.end);
    CHECK(launch.block_end >= 0);
    double before = 0;
    for (int m = 0; m < gg::cuda::moments; ++m) {
        if (launch.came[m] == 0) continue;
        CHECK(launch.came[m] <= launch.blocks);
        if (launch.came[m] != launch.blocks) continue;  // idle blocks do not come, so means are of others
        CHECK(launch.at[m] >= before);
        before = launch.at[m];
    }
    CHECK(before <= launch.block_end);
}

}  // namespace

TEST_CASE("a log of stages has every kernel of a step in its order, and the logits are the same") {
    GG_NEED_GPU();
    for (const std::string name : {"gpt-oss-window", "llama-half"}) {
        INFO(name);
        const auto path = host_test::golden_model(name);
        const Subject plain(path);
        const gg::gguf::File file = gg::gguf::File::open(path);
        gg::cuda::StageLog log;
        const auto model = load(file, gg::cuda::Launches::early_graph, {}, nullptr, &log);
        const auto noted = model->session(32), other = plain.session(32);
        for (gg::Session* session : {noted.get(), other.get()}) {
            session->prefill(plain.tokens(8));
            session->logits();
        }
        CHECK(log.take().size() > 0);
        const std::int32_t token = plain.tokens(9)[8];
        CHECK(after_one(*noted, token) == after_one(*other, token));
        const std::vector<LaunchTimes> launches = log.take();
        REQUIRE(launches.size() == log.chain().size());
        for (std::size_t i = 0; i < launches.size(); ++i) {
            CHECK(launches[i].name == log.chain()[i].name);
            check_times(launches[i]);
        }
        CHECK(log.take().empty());
    }
}

TEST_CASE("a log of stages that is too small says so") {
    GG_NEED_GPU();
    const auto path = host_test::golden_model("gpt2-half");
    const Subject plain(path);
    const gg::gguf::File file = gg::gguf::File::open(path);
    gg::cuda::StageLog log(10);
    const auto model = load(file, gg::cuda::Launches::early_graph, {}, nullptr, &log);
    const auto session = model->session(32);
    session->prefill(plain.tokens(4));
    session->logits();
    CHECK_THROWS_AS(log.take(), gg::Error);
}
