// Where the bytes of a model's tensors come from on their way to a device. A place in a tensor is named by
// its address in the file, also where no bytes lie there.
//
// FileSource: the file, read piece by piece into a ring of pinned buffers; while the device copies from some,
// the processor fills the next. The pages of the mapping are not touched, since reading a file costs less
// than making the system map it. Bytes moved: once over the bus, and once within the host's memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <mutex>
#include <vector>

#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/stream.hpp"
#include "gg/gguf/file.hpp"
#include "gg/host/thread_pool.hpp"

namespace gg::cuda {

class ByteSource {
  public:
    virtual ~ByteSource() = default;

    /// Enqueues on the stream that `bytes` bytes at an address of the file, whole blocks of one tensor, come
    /// to `to` on the device.
    virtual void bring(const std::byte* from, std::size_t bytes, unsigned char* to, cudaStream_t stream) = 0;
};

class FileSource final : public ByteSource {
  public:
    struct Options {
        std::size_t buffer_bytes = std::size_t{8} << 20;  ///< of a pinned buffer
        int buffers = 4;
        host::ThreadPool* pool = nullptr;  ///< fills pinned buffers; null: this thread
    };

    /// The file and the pool outlive this, and streams what they were given.
    FileSource(const gguf::File& file, const Options& options)
        : file_(file), options_(options), buffers_(static_cast<std::size_t>(options.buffers)) {
        for (Buffer& buffer : buffers_)
            buffer.memory = PinnedBuffer(options.buffer_bytes, "a buffer for loading weights");
    }
    FileSource(const FileSource&) = delete;
    FileSource& operator=(const FileSource&) = delete;
    ~FileSource() override {
        try {
            for (const Buffer& buffer : buffers_) buffer.copied.wait();  // copies still read the buffers
        } catch (const Error&) {  // of the device: whoever waits for the stream is told
        }
    }

    void bring(const std::byte* from, std::size_t bytes, unsigned char* to, cudaStream_t stream) override {
        for (std::size_t done = 0; done < bytes; done += options_.buffer_bytes) {
            const std::size_t n = std::min(options_.buffer_bytes, bytes - done);
            Buffer& buffer = buffers_[turn_];
            turn_ = (turn_ + 1) % buffers_.size();
            buffer.copied.wait();
            fill(buffer.memory.data(), from + done, n);
            check(cudaMemcpyAsync(to + done, buffer.memory.data(), n, cudaMemcpyHostToDevice, stream),
                  "copying weights to the device");
            buffer.copied.record(stream);
        }
    }

  private:
    struct Buffer {
        PinnedBuffer memory;
        Event copied;  ///< after the last copy from it
    };

    void fill(std::byte* to, const std::byte* from, std::size_t bytes) {
        constexpr std::size_t part = std::size_t{256} << 10;
        if (options_.pool == nullptr || bytes <= part) return file_.read(from, bytes, to);
        std::mutex guard;
        std::exception_ptr failure;
        options_.pool->run(static_cast<long>((bytes + part - 1) / part), [&](long i, int) {
            const std::size_t first = static_cast<std::size_t>(i) * part;
            try {
                file_.read(from + first, std::min(part, bytes - first), to + first);
            } catch (...) {
                const std::lock_guard lock(guard);
                failure = std::current_exception();
            }
        });
        if (failure) std::rethrow_exception(failure);
    }

    const gguf::File& file_;
    Options options_;
    std::vector<Buffer> buffers_;
    std::size_t turn_ = 0;
};

}  // namespace gg::cuda
