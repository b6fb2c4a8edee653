// Two layers of decoding's stages in a row, launched in several ways. The chain is compiled twice, the second
// time with random delays (GG_JITTER), in a namespace of its own, since kernels of one name would be merged.
#pragma once

#include <vector>

namespace cuda_test {

enum class ChainLaunch {
    stream,            ///< one kernel after the other
    dependent_stream,  ///< kernels may start before their predecessor ends
    graph,             ///< a captured graph with ordinary edges
    dependent_graph    ///< with programmatic edges
};

/// The bits of all that the last layer wrote, one vector a run.
using ChainBits = std::vector<std::vector<unsigned>>;

}  // namespace cuda_test

namespace chain_plain {
cuda_test::ChainBits run_routed(cuda_test::ChainLaunch how, int runs);
cuda_test::ChainBits run_dense(cuda_test::ChainLaunch how, int runs);
}  // namespace chain_plain

namespace chain_jitter {
cuda_test::ChainBits run_routed(cuda_test::ChainLaunch how, int runs);
cuda_test::ChainBits run_dense(cuda_test::ChainLaunch how, int runs);
}  // namespace chain_jitter
