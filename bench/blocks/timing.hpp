// How a block is timed: many launches of it in one captured graph, the graph again and again.
//
// A round is a graph of as many calls as take about four milliseconds, and starts while the graph before it
// still runs, so that neither a launch's way to the GPU nor an idle clock is measured. Calls are numbered, so
// that they can take turns on several buffers: what one of them reads must not lie in the second-level cache
// still. From the second call on a stage may start early, as in the engine's graph.
#pragma once

#include <algorithm>
#include <vector>

#include "bench.hpp"
#include "gg/cuda/device.hpp"

namespace gg::bench {

class Stream {
  public:
    Stream() { cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(stream_); }
    operator cudaStream_t() const { return stream_; }
    void wait() const { cuda::check(cudaStreamSynchronize(stream_), "running a block"); }

  private:
    cudaStream_t stream_ = nullptr;
};

class Event {
  public:
    Event() { cuda::check(cudaEventCreate(&event_), "making an event"); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { cudaEventDestroy(event_); }
    void record(cudaStream_t stream) const {
        cuda::check(cudaEventRecord(event_, stream), "recording an event");
    }
    /// Microseconds from an event to this one, when both have happened.
    double since(const Event& begin) const {
        float milliseconds = 0;
        cuda::check(cudaEventSynchronize(event_), "running a block");
        cuda::check(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "reading the time");
        return 1e3 * static_cast<double>(milliseconds);
    }

  private:
    cudaEvent_t event_ = nullptr;
};

/// Calls run(stream, i), i = 0 .. count - 1, captured.
class Graph {
  public:
    template <class Run>
    Graph(cudaStream_t stream, int count, const Run& run) {
        cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a block");
        for (int i = 0; i < count; ++i) run(stream, i);
        cudaGraph_t graph = nullptr;
        cuda::check(cudaStreamEndCapture(stream, &graph), "capturing a block");
        const cudaError_t result = cudaGraphInstantiate(&executable_, graph, 0);
        cudaGraphDestroy(graph);
        cuda::check(result, "instantiating a graph");
    }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    ~Graph() { cudaGraphExecDestroy(executable_); }
    void launch(cudaStream_t stream) const {
        cuda::check(cudaGraphLaunch(executable_, stream), "launching a graph");
    }

  private:
    cudaGraphExec_t executable_ = nullptr;
};

inline constexpr double round_microseconds = 4000;
inline constexpr int most_calls = 2000;

/// Microseconds of one call of run(stream, i); calls i and i + rotation use the same buffers.
template <class Run>
Times time_calls(const Bench& bench, int rotation, const Run& run) {
    const Stream stream;
    const Event begin, end;
    cuda::check(cudaDeviceSynchronize(), "making the data of a block");  // on another stream
    run(stream, 0);                                                      // loads the kernels
    stream.wait();
    const int trial = std::min(rotation, 16) + 1;
    begin.record(stream);
    for (int i = 1; i <= trial; ++i) run(stream, i);
    end.record(stream);
    const double each = std::max(end.since(begin) / trial, 0.5);
    int calls = std::clamp(static_cast<int>(round_microseconds / each), 1, most_calls);
    calls = (calls + rotation - 1) / rotation * rotation;
    const Graph graph(stream, calls, run);
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
