// A warp's stream of weights: a ring of `depth` pieces of shared memory, filled ahead in the background and
// used in order. With bulk copies one lane starts a copy and a barrier in shared memory counts its bytes;
// below compute capability 9.0 each lane copies 16 bytes at a time and waits for its own copies.
//
// Every warp has a ring of its own, so no warp waits for another's pieces. The order of calls is the same on
// all chips: fetch or skip for pieces 0 to depth - 1, then again and again wait, release, and fetch or skip
// for the piece that was released.
#pragma once

#include "gg/cuda/copies.cuh"

namespace gg::cuda {

template <int piece_bytes, int depth>
class WeightRing {
  public:
    /// `memory` [depth * piece_bytes] and `barriers` [depth] belong to this warp alone.
    GG_DEVICE WeightRing(unsigned char* memory, Size* barriers, int lane)
        : memory_(memory), barriers_(barriers), lane_(lane) {
        if (has_bulk_copies && lane == 0) {
#pragma unroll
            for (int i = 0; i < depth; ++i) barrier_init(barriers + i, 1);
            barrier_init_fence();
        }
        __syncwarp();
    }

    /// Starts to copy `bytes` (a multiple of 16, at most piece_bytes) into piece `slot`, which is not in use.
    GG_DEVICE void fetch(int slot, const unsigned char* from, int bytes) {
        unsigned char* to = memory_ + slot * piece_bytes;
        if constexpr (has_bulk_copies) {
            if (lane_ == 0) {
                barrier_expect(barriers_ + slot, static_cast<unsigned>(bytes));
                bulk_copy(to, from, static_cast<unsigned>(bytes), barriers_ + slot);
            }
        } else {
            for (int i = lane_ * 16; i < bytes; i += warp_size * 16) copy_async_16(to + i, from + i);
            copy_async_commit();
        }
    }

    /// Stands for a fetch where nothing is left to fetch.
    GG_DEVICE void skip() {
        if constexpr (!has_bulk_copies) copy_async_commit();
    }

    /// The next piece, once it has arrived.
    GG_DEVICE const unsigned char* wait() {
        if constexpr (has_bulk_copies) {
            barrier_wait(barriers_ + used_, parity_);
        } else {
            copy_async_wait<depth - 1>();
            __syncwarp();
        }
        return memory_ + used_ * piece_bytes;
    }

    /// The piece that wait gave, when the whole warp has read it: the next fetch goes there.
    GG_DEVICE int release() {
        __syncwarp();
        const int slot = used_;
        if (++used_ == depth) {
            used_ = 0;
            parity_ ^= 1u;
        }
        return slot;
    }

  private:
    unsigned char* memory_;
    Size* barriers_;
    int lane_;
    int used_ = 0;
    unsigned parity_ = 0;
};

}  // namespace gg::cuda
