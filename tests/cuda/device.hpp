// Running one function on a GPU from a test.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdlib>
#include <vector>

#include "catch.hpp"

namespace cuda_test {

/// Skips the test, counted, where there is no GPU.
#define GG_NEED_GPU()                                                                               \
    do {                                                                                            \
        int devices = 0;                                                                            \
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GG_SKIP("no CUDA device"); \
    } while (false)

/// Whether GG_TEST_BRIEF is set, for tools under which a kernel takes a thousand times as long
/// (tests/tools/sanitize.py).
inline bool is_brief() {
    static const bool is_set = std::getenv("GG_TEST_BRIEF") != nullptr;
    return is_set;
}

/// How often a test repeats itself, or over how many tokens.
inline int repeats(int full, int brief) {
    return is_brief() ? brief : full;
}

/// Device memory that begins as a copy of host values.
template <class T>
class DeviceArray {
  public:
    explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
        REQUIRE(cudaMalloc(&data_, count_ * sizeof(T)) == cudaSuccess);
        REQUIRE(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
    }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
    ~DeviceArray() { cudaFree(data_); }

    T* data() const { return data_; }
    std::vector<T> read() const {
        std::vector<T> values(count_);
        REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
        REQUIRE(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
        return values;
    }

  private:
    T* data_ = nullptr;
    std::size_t count_;
};

}  // namespace cuda_test
