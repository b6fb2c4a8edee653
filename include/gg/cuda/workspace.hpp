// The buffers of a step, planned first and then taken from the device in one piece, cleared.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "gg/cuda/device_memory.hpp"

namespace gg::cuda {

class Workspace {
  public:
    /// Plans `count` elements; allocate() makes `pointer` point to them. Its address must stay.
    template <class T>
    void plan(T*& pointer, std::uint64_t count) {
        pieces_.push_back({reinterpret_cast<void**>(&pointer), bytes_});
        bytes_ += DeviceArena::padded(count * sizeof(T));
    }
    /// Of all that is planned.
    std::uint64_t bytes() const { return bytes_; }

    /// `purpose` is for messages. Everything is zero from here on, operands' padding and counters among it.
    void allocate(const std::string& purpose, cudaStream_t stream) {
        memory_ = DeviceBuffer<unsigned char>(bytes_, purpose);
        for (const auto& [pointer, offset] : pieces_) *pointer = memory_.data() + offset;
        check(cudaMemsetAsync(memory_.data(), 0, bytes_, stream), "clearing " + purpose);
    }

  private:
    std::vector<std::pair<void**, std::uint64_t>> pieces_;
    std::uint64_t bytes_ = 0;
    DeviceBuffer<unsigned char> memory_;
};

}  // namespace gg::cuda
