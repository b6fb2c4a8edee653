// Bytes of the host brought to the device through two pinned buffers: while the device copies from one, the
// processor fills the other. A piece is at most what a buffer holds.
//
//   upload.begin();                        waits for the buffer whose turn it is
//   upload.add(data, bytes);               once or more
//   upload.send(device_address);           enqueues the copy
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "gg/cuda/device_memory.hpp"
#include "gg/host/thread_pool.hpp"

namespace gg::cuda {

class Upload {
  public:
    /// Told how many bytes of the host were brought so far.
    using Progress = std::function<void(std::uint64_t bytes)>;

    /// The pool fills buffers; null: the calling thread does. Stream and pool outlive this.
    Upload(cudaStream_t stream, std::size_t piece_bytes, host::ThreadPool* pool, Progress progress)
        : stream_(stream), pool_(pool), progress_(std::move(progress)), piece_bytes_(piece_bytes) {
        for (Buffer& buffer : buffers_) {
            buffer.memory = PinnedBuffer(piece_bytes, "a buffer for loading weights");
            check(cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming), "creating an event");
        }
    }
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;
    ~Upload() {
        cudaStreamSynchronize(stream_);  // copies still read the buffers
    }

    cudaStream_t stream() const { return stream_; }
    std::size_t piece_bytes() const { return piece_bytes_; }

    /// A new piece. Returns where it begins, for callers that write it themselves and tell `wrote`.
    std::byte* begin() {
        turn_ = 1 - turn_;
        used_ = 0;
        check(cudaEventSynchronize(buffers_[turn_].copied), "copying weights to the device");
        return buffers_[turn_].memory.data();
    }

    /// Appends bytes to the piece.
    void add(const std::byte* from, std::size_t bytes) {
        std::byte* const to = buffers_[turn_].memory.data() + used_;
        constexpr std::size_t part = std::size_t{256} << 10;
        if (pool_ == nullptr || bytes <= part)
            std::memcpy(to, from, bytes);
        else
            pool_->run(static_cast<long>((bytes + part - 1) / part), [&](long i, int) {
                const std::size_t first = static_cast<std::size_t>(i) * part;
                std::memcpy(to + first, from + first, std::min(part, bytes - first));
            });
        wrote(bytes, bytes);
    }

    /// The piece became longer by `bytes`, made of `read` bytes.
    void wrote(std::size_t bytes, std::size_t read) {
        used_ += bytes;
        done_ += read;
    }

    /// Enqueues the copy of the piece.
    void send(void* to) {
        Buffer& buffer = buffers_[turn_];
        check(cudaMemcpyAsync(to, buffer.memory.data(), used_, cudaMemcpyHostToDevice, stream_),
              "copying weights to the device");
        check(cudaEventRecord(buffer.copied, stream_), "recording an event");
        if (progress_) progress_(done_);
    }

    /// Bytes of any number.
    void copy(const std::byte* from, std::size_t bytes, unsigned char* to) {
        for (std::size_t done = 0; done < bytes; done += piece_bytes_) {
            begin();
            add(from + done, std::min(piece_bytes_, bytes - done));
            send(to + done);
        }
    }

  private:
    struct Buffer {
        PinnedBuffer memory;
        cudaEvent_t copied = nullptr;  ///< after the last copy from it

        Buffer() = default;
        Buffer(const Buffer&) = delete;
        Buffer& operator=(const Buffer&) = delete;
        ~Buffer() {
            if (copied != nullptr) cudaEventDestroy(copied);
        }
    };

    cudaStream_t stream_;
    host::ThreadPool* pool_;
    Progress progress_;
    std::size_t piece_bytes_;
    Buffer buffers_[2];
    int turn_ = 0;
    std::size_t used_ = 0;    // bytes of the piece
    std::uint64_t done_ = 0;  // bytes read
};

}  // namespace gg::cuda
