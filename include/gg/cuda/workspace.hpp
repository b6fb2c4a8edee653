// The buffers of a step, planned first and then taken from the device in one piece, cleared.
#pragma once

#include <string>

#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/workspace_plan.hpp"

namespace gg::cuda {

class Workspace : public WorkspacePlan {
  public:
    /// `purpose` is for messages. Everything is zero from here on, operands' padding and counters among it.
    void allocate(const std::string& purpose, cudaStream_t stream) {
        memory_ = DeviceBuffer<unsigned char>(bytes(), purpose);
        place(memory_.data());
        check(cudaMemsetAsync(memory_.data(), 0, bytes(), stream), "clearing " + purpose);
    }

  private:
    DeviceBuffer<unsigned char> memory_;
};

}  // namespace gg::cuda
