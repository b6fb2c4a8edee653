// A chain of stages gives the same bits however it is launched, and whenever its blocks run.
#define GG_CHAIN chain_plain
#include "cuda/decode_chain.cuh"

namespace {

using cuda_test::ChainBits;
using cuda_test::ChainLaunch;

const int runs = cuda_test::repeats(10, 2);

/// Runs of both builds in every way, against the first run of the plain one.
template <class Plain, class Jitter>
void check_same_bits(const Plain& plain, const Jitter& jitter) {
    const std::vector<unsigned> expected = plain(ChainLaunch::stream, 1)[0];
    // Were all outputs one value, the bits would say little.
    CHECK(std::count(expected.begin(), expected.end(), expected[0]) < static_cast<long>(expected.size()) / 8);
    const auto check = [&](const ChainBits& all, const char* name) {
        INFO(name);
        CHECK(all.size() == runs);
        for (const std::vector<unsigned>& bits : all) CHECK((bits == expected));
    };
    check(plain(ChainLaunch::stream, runs), "stream");
    check(plain(ChainLaunch::dependent_stream, runs), "dependent stream");
    check(plain(ChainLaunch::graph, runs), "graph");
    check(plain(ChainLaunch::dependent_graph, runs), "dependent graph");
    check(jitter(ChainLaunch::stream, runs), "delays, stream");
    check(jitter(ChainLaunch::dependent_stream, runs), "delays, dependent stream");
    check(jitter(ChainLaunch::graph, runs), "delays, graph");
    check(jitter(ChainLaunch::dependent_graph, runs), "delays, dependent graph");
}

}  // namespace

TEST_CASE("a chain of routed layers gives the same bits however it is launched") {
    GG_NEED_GPU();
    check_same_bits(chain_plain::run_routed, chain_jitter::run_routed);
}

TEST_CASE("a chain of dense layers gives the same bits however it is launched") {
    GG_NEED_GPU();
    check_same_bits(chain_plain::run_dense, chain_jitter::run_dense);
}
