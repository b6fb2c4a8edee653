// An event that tells the time on the device.
#pragma once

#include <cuda_runtime_api.h>

#include "gg/cuda/device.hpp"

namespace gg::bench {

class TimedEvent {
  public:
    TimedEvent() { cuda::check(cudaEventCreate(&event_), "making an event"); }
    TimedEvent(const TimedEvent&) = delete;
    TimedEvent& operator=(const TimedEvent&) = delete;
    ~TimedEvent() { cudaEventDestroy(event_); }
    void record(cudaStream_t stream) const {
        cuda::check(cudaEventRecord(event_, stream), "recording an event");
    }
    /// Microseconds from an event to this one, after waiting for it.
    double since(const TimedEvent& begin) const {
        float milliseconds = 0;
        cuda::check(cudaEventSynchronize(event_), "measuring");
        cuda::check(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "reading the time");
        return 1e3 * static_cast<double>(milliseconds);
    }

  private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace gg::bench
