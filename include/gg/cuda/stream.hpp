// Owned streams, events and graphs of the current device. Errors: gg::Error cuda_error.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "gg/cuda/device.hpp"

namespace gg::cuda {

/// A stream of its own.
class Stream {
  public:
    Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(stream_); }
    operator cudaStream_t() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

/// A point in a stream that the host can wait for; one that was never recorded has been reached.
class Event {
  public:
    Event() = default;
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
    Event& operator=(Event&& other) noexcept {
        std::swap(event_, other.event_);
        return *this;
    }
    ~Event() {
        if (event_ != nullptr) cudaEventDestroy(event_);
    }
    void record(cudaStream_t stream) {
        if (event_ == nullptr)
            check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "creating an event");
        check(cudaEventRecord(event_, stream), "recording an event");
    }
    void wait() const {
        if (event_ != nullptr) check(cudaEventSynchronize(event_), "computing on the device");
    }

  private:
    cudaEvent_t event_ = nullptr;
};

/// What `enqueue` puts on a stream, ready to be launched again and again.
class Graph {
  public:
    Graph() = default;
    template <class F>
    Graph(cudaStream_t stream, F&& enqueue) {
        cudaGraph_t graph = nullptr;
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a step");
        try {
            enqueue();
        } catch (...) {
            cudaStreamEndCapture(stream, &graph);
            if (graph != nullptr) cudaGraphDestroy(graph);
            throw;
        }
        check(cudaStreamEndCapture(stream, &graph), "capturing a step");
        const cudaError_t result = cudaGraphInstantiate(&graph_, graph, 0);
        cudaGraphDestroy(graph);
        check(result, "making a graph of a step");
    }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    Graph(Graph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
    Graph& operator=(Graph&& other) noexcept {
        std::swap(graph_, other.graph_);
        return *this;
    }
    ~Graph() {
        if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    }
    explicit operator bool() const { return graph_ != nullptr; }
    void launch(cudaStream_t stream) const { check(cudaGraphLaunch(graph_, stream), "launching a step"); }

  private:
    cudaGraphExec_t graph_ = nullptr;
};

}  // namespace gg::cuda
