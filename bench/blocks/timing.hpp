// How a block is timed: many launches of it in one captured graph, the graph again and again.
//
// A round is a graph of as many calls as take about four milliseconds, and starts while the graph before it
// still runs, so that neither a launch's way to the GPU nor an idle clock is measured. Calls are numbered, so
// that they can take turns on several buffers: what one of them reads must not lie in the second-level cache
// still. From the second call on a stage may start early, as in the engine's graph.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../timed_event.hpp"
#include "bench.hpp"
#include "gg/cuda/stream.hpp"

namespace gg::bench {

inline constexpr double round_microseconds = 4000;
inline constexpr int most_calls = 2000;

/// Microseconds of one call of run(stream, i); calls i and i + rotation use the same buffers.
template <class Run>
Times time_calls(const Bench& bench, int rotation, const Run& run) {
    const cuda::Stream stream;
    const TimedEvent begin, end;
    cuda::check(cudaDeviceSynchronize(), "making the data of a block");  // on another stream
    run(stream, 0);                                                      // loads the kernels
    cuda::check(cudaStreamSynchronize(stream), "running a block");
    const int trial = std::min(rotation, 16) + 1;
    begin.record(stream);
    for (int i = 1; i <= trial; ++i) run(stream, i);
    end.record(stream);
    const double each = std::max(end.since(begin) / trial, 0.5);
    int calls = std::clamp(static_cast<int>(round_microseconds / each), 1, most_calls);
    calls = (calls + rotation - 1) / rotation * rotation;
    const cuda::Graph graph(stream, [&] {
        for (int i = 0; i < calls; ++i) run(stream, i);
    });
    std::vector<double> times;
    for (int round = -2; round < bench.rounds(); ++round) {  // two to warm up
        graph.launch(stream);
        begin.record(stream);
        graph.launch(stream);
        end.record(stream);
        const double time = end.since(begin) / calls;
        if (round >= 0) times.push_back(time);
    }
    return times_of(times);
}

/// How many times what reads `bytes` must be there, so that all together are far beyond the second-level
/// cache.
inline int copies_beyond_cache(const Bench& bench, double bytes) {
    return std::clamp(static_cast<int>(std::ceil(3.0 * static_cast<double>(bench.device().l2_bytes) / bytes)),
                      1, 1024);
}

}  // namespace gg::bench
