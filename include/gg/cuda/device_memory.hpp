// Owned memory: of the current device, pinned on the host, and one allocation that is given out in pieces.
// Errors: gg::Error out_of_memory that says how much was needed and how much is free.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "gg/core/error.hpp"
#include "gg/cuda/device.hpp"
#include "gg/cuda/workspace_plan.hpp"

namespace gg::cuda {

/// Bytes of the current device's memory that nobody has taken.
inline std::uint64_t free_device_memory() {
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for the free device memory");
    return free;
}

/// `count` elements of device memory, uninitialised; freed at the end. Freeing waits for the device.
template <class T>
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    /// `purpose` is for messages: "the key-value cache".
    DeviceBuffer(std::size_t count, const std::string& purpose) : size_(count) {
        if (count == 0) return;
        void* data = nullptr;
        const cudaError_t result = cudaMalloc(&data, count * sizeof(T));
        if (result == cudaErrorMemoryAllocation) refuse_memory(purpose);
        check(result, "allocating " + purpose);
        data_ = static_cast<T*>(data);
    }
    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;
    DeviceBuffer(DeviceBuffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~DeviceBuffer() {
        if (data_ != nullptr) cudaFree(data_);
    }

    /// An address on the device.
    T* data() const { return data_; }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return size_ * sizeof(T); }

  private:
    [[noreturn]] void refuse_memory(const std::string& purpose) const {
        cudaGetLastError();  // reported here; later calls must not report it again
        std::size_t free = 0, total = 0;
        if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
        throw Error(ErrorCode::out_of_memory,
                    {.field = purpose,
                     .expected = std::to_string(bytes()) + " bytes of device memory",
                     .found = std::to_string(free) + " of " + std::to_string(total) + " bytes free"});
    }

    T* data_ = nullptr;
    std::size_t size_ = 0;
};

/// One allocation, given out from the front in pieces that begin at multiples of 256 bytes.
class DeviceArena {
  public:
    DeviceArena() = default;
    DeviceArena(std::size_t bytes, const std::string& purpose) : buffer_(bytes, purpose), purpose_(purpose) {}

    /// The next piece. Throws gg::Error (internal) if the plan was too small.
    unsigned char* take(std::uint64_t bytes) {
        if (used_ + padded_piece(bytes) > buffer_.bytes())
            throw Error(ErrorCode::internal, {.field = purpose_,
                                              .expected = std::to_string(padded_piece(bytes)) + " bytes left",
                                              .found = std::to_string(buffer_.bytes() - used_) + " of " +
                                                       std::to_string(buffer_.bytes())});
        unsigned char* piece = buffer_.data() + used_;
        used_ += padded_piece(bytes);
        return piece;
    }
    std::uint64_t used() const { return used_; }
    std::uint64_t bytes() const { return buffer_.bytes(); }

  private:
    DeviceBuffer<unsigned char> buffer_;
    std::string purpose_;
    std::uint64_t used_ = 0;
};

/// Host memory that the device copies from and to without help of the processor.
class PinnedBuffer {
  public:
    PinnedBuffer() = default;
    PinnedBuffer(std::size_t bytes, const std::string& purpose) : size_(bytes) {
        void* data = nullptr;
        const cudaError_t result = cudaMallocHost(&data, bytes);
        if (result == cudaErrorMemoryAllocation) {
            cudaGetLastError();
            throw Error(ErrorCode::out_of_memory,
                        {.field = purpose,
                         .expected = std::to_string(bytes) + " bytes of page-locked host memory",
                         .found = "not enough"});
        }
        check(result, "allocating " + purpose);
        data_ = static_cast<std::byte*>(data);
    }
    PinnedBuffer(const PinnedBuffer&) = delete;
    PinnedBuffer& operator=(const PinnedBuffer&) = delete;
    PinnedBuffer(PinnedBuffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~PinnedBuffer() {
        if (data_ != nullptr) cudaFreeHost(data_);
    }

    std::byte* data() const { return data_; }
    std::size_t size() const { return size_; }

  private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace gg::cuda
