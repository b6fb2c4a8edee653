// Buffers planned side by side in one piece of device memory, before there is any: the sum of their bytes,
// and later the address of each. Buffers that are never in use at the same time may share a part of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

namespace gg::cuda {

/// What `bytes` take where pieces of one allocation begin at multiples of 256 bytes.
constexpr std::uint64_t padded_piece(std::uint64_t bytes) {
    return (bytes + 255) / 256 * 256;
}

class WorkspacePlan {
  public:
    /// Plans `count` elements; place() makes `pointer` point to them. Its address must stay.
    template <class T>
    void plan(T*& pointer, std::uint64_t count) {
        pieces_.push_back({reinterpret_cast<void**>(const_cast<std::remove_const_t<T>**>(&pointer)), next_});
        next_ += padded_piece(count * sizeof(T));
        bytes_ = std::max(bytes_, next_);
    }
    /// Where the next buffer begins.
    std::uint64_t next() const { return next_; }
    /// The next buffers begin at `start`, a former next(): they share memory with those planned since.
    void share_from(std::uint64_t start) { next_ = start; }
    /// Of all that is planned.
    std::uint64_t bytes() const { return bytes_; }
    /// `base` begins at a multiple of 256 bytes.
    void place(unsigned char* base) const {
        for (const auto& [pointer, offset] : pieces_) *pointer = base + offset;
    }

  private:
    std::vector<std::pair<void**, std::uint64_t>> pieces_;
    std::uint64_t next_ = 0, bytes_ = 0;
};

}  // namespace gg::cuda
