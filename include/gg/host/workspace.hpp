// Memory of the host backend: aligned zeroed buffers, rows of activations, and a stack of scratch space that
// grows on first use and is reused by every later step.
//
// Rows are padded with zeros to a multiple of 32 floats, so that products run over whole chunks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/host/plan.hpp"

namespace gg::host {

/// Floats aligned to 64 bytes, all 0; the system provides the pages when they are first touched.
class FloatBuffer {
  public:
    FloatBuffer() = default;
    /// Throws gg::Error out_of_memory.
    explicit FloatBuffer(std::size_t count)
        : memory_(std::calloc(count * sizeof(float) + 64, 1)), count_(count) {
        if (!memory_)
            throw Error(ErrorCode::out_of_memory,
                        "cannot allocate " + std::to_string(count * sizeof(float)) + " bytes");
        const auto address = (reinterpret_cast<std::uintptr_t>(memory_.get()) + 63) / 64 * 64;
        data_ = reinterpret_cast<float*>(address);
    }

    float* data() const { return data_; }
    std::size_t size() const { return count_; }
    std::uint64_t bytes() const { return count_ > 0 ? count_ * sizeof(float) + 64 : 0; }

  private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> memory_;
    float* data_ = nullptr;
    std::size_t count_ = 0;
};

/// Rows of float32 activations; the padding of each row is 0.
struct Rows {
    float* data = nullptr;
    int count = 0;
    int width = 0;
    std::size_t stride = 0;  ///< floats from row to row, a multiple of 32

    float* row(int i) const { return data + static_cast<std::size_t>(i) * stride; }
    /// Rows [first, first + n).
    Rows part(int first, int n) const { return {row(first), n, width, stride}; }
};

/// A stack of scratch memory. What is taken inside a Scope is given back at its end.
class Workspace {
  public:
    class Scope {
      public:
        explicit Scope(Workspace& workspace)
            : workspace_(workspace), block_(workspace.block_), used_(workspace.used_) {}
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;
        ~Scope() {
            workspace_.block_ = block_;
            workspace_.used_ = used_;
        }

      private:
        Workspace& workspace_;
        std::size_t block_, used_;
    };

    Workspace() = default;
    /// Begins with one block of `count` floats; what does not fit goes to further blocks.
    explicit Workspace(std::size_t count) { blocks_.emplace_back(count); }

    /// `count` floats, aligned to 64 bytes, of any value.
    float* floats(std::size_t count) {
        const std::size_t need = (count + 15) / 16 * 16;
        if (used_ > 0 && used_ + need > blocks_[block_].size()) {
            ++block_;
            used_ = 0;
        }
        if (block_ == blocks_.size())
            blocks_.emplace_back(std::max(need, block_floats));
        else if (used_ + need > blocks_[block_].size())  // nothing lies in it
            blocks_[block_] = FloatBuffer(need);
        float* p = blocks_[block_].data() + used_;
        used_ += need;
        return p;
    }

    /// Rows whose padding is 0 and whose other elements have any value.
    Rows rows(int count, int width) {
        const std::size_t stride = row_stride(width);
        Rows rows{floats(static_cast<std::size_t>(count) * stride), count, width, stride};
        for (int i = 0; i < count; ++i)
            for (std::size_t j = static_cast<std::size_t>(width); j < stride; ++j) rows.row(i)[j] = 0.0f;
        return rows;
    }

    /// `count` integers of any value.
    int* integers(std::size_t count) {
        static_assert(sizeof(int) == sizeof(float));
        return reinterpret_cast<int*>(floats(count));
    }

    std::uint64_t bytes() const {
        std::uint64_t bytes = 0;
        for (const FloatBuffer& block : blocks_) bytes += block.bytes();
        return bytes;
    }

  private:
    static constexpr std::size_t block_floats = std::size_t{1} << 18;
    std::vector<FloatBuffer> blocks_;
    std::size_t block_ = 0, used_ = 0;
};

}  // namespace gg::host
