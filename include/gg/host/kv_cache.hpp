// Keys and values of one layer and one session, float32, in the layout that attention reads (host/kernels/
// attend.inl): per key head, keys in tiles of 16 positions [tile][head_dim][16] and values in rows padded to
// 16. A ring: position p lies in slot p mod capacity. Sliding layers hold the window and one chunk.
#pragma once

#include "gg/host/workspace.hpp"
#include "gg/model/info.hpp"

namespace gg::host {

class KvCache {
  public:
    KvCache(const Dims& dims, int layer, int context)
        : kv_heads_(dims.kv_heads),
          head_dim_(dims.head_dim),
          value_stride_((dims.head_dim + 15) / 16 * 16),
          capacity_(cache_positions(dims, layer, context, cache_shape)),
          keys_(static_cast<std::size_t>(kv_heads_) * static_cast<std::size_t>(capacity_) *
                static_cast<std::size_t>(head_dim_)),
          values_(static_cast<std::size_t>(kv_heads_) * static_cast<std::size_t>(capacity_) *
                  static_cast<std::size_t>(value_stride_)) {}

    /// Stores a row's keys and values, each [kv_heads][head_dim].
    void append(long position, const float* key, const float* value) {
        const auto slot = static_cast<std::size_t>(position % capacity_);
        const auto width = static_cast<std::size_t>(head_dim_);
        for (int h = 0; h < kv_heads_; ++h) {
            float* tile = keys_.data() + key_head(h) + slot / 16 * width * 16 + slot % 16;
            float* row = values_.data() + value_head(h) + slot * static_cast<std::size_t>(value_stride_);
            for (std::size_t d = 0; d < width; ++d) {
                tile[d * 16] = key[static_cast<std::size_t>(h) * width + d];
                row[d] = value[static_cast<std::size_t>(h) * width + d];
            }
        }
    }

    /// Takes positions over from another cache of this layer, in whole tiles: it has the same heads, may have
    /// another capacity, and must hold them. Slots beside them in the first and the last tile change too.
    void copy(const KvCache& from, CachePositions positions) {
        if (positions.first >= positions.end) return;
        const auto copy_tile = [](FloatBuffer& to, std::size_t to_head, int to_tile,
                                  const FloatBuffer& source, std::size_t source_head, int source_tile,
                                  int row) {
            const std::size_t floats = static_cast<std::size_t>(row) * 16;
            std::copy_n(source.data() + source_head + static_cast<std::size_t>(source_tile) * floats, floats,
                        to.data() + to_head + static_cast<std::size_t>(to_tile) * floats);
        };
        for (int h = 0; h < kv_heads_; ++h)
            for (int tile = positions.first / 16; tile <= (positions.end - 1) / 16; ++tile) {
                const int here = tile % (capacity_ / 16), there = tile % (from.capacity_ / 16);
                copy_tile(keys_, key_head(h), here, from.keys_, from.key_head(h), there, head_dim_);
                copy_tile(values_, value_head(h), here, from.values_, from.value_head(h), there,
                          value_stride_);
            }
    }

    std::uint64_t bytes() const { return keys_.bytes() + values_.bytes(); }
    const float* keys(int head) const { return keys_.data() + key_head(head); }
    const float* values(int head) const { return values_.data() + value_head(head); }
    long capacity() const { return capacity_; }
    int value_stride() const { return value_stride_; }

  private:
    std::size_t key_head(int h) const {
        return static_cast<std::size_t>(h) * static_cast<std::size_t>(capacity_) *
               static_cast<std::size_t>(head_dim_);
    }
    std::size_t value_head(int h) const {
        return static_cast<std::size_t>(h) * static_cast<std::size_t>(capacity_) *
               static_cast<std::size_t>(value_stride_);
    }

    int kv_heads_, head_dim_, value_stride_, capacity_;
    FloatBuffer keys_, values_;
};

}  // namespace gg::host
