// The instructions of a GPU that gg's kernels use and that C++ has no word for, one function each. Includes
// nothing, so that a run-time compiler without the toolkit's headers can read it: 16-bit floats are bits in
// unsigned integers, conversions and tensor-core products are inline PTX.
//
// What only compute capability 9.0 and later has (dependent launch, bulk copies) degrades here and in
// copies.cuh, and nowhere else: below, wait_for_previous and launch_next do nothing, since the kernels of a
// stream then run one after the other, and weights are copied by the threads of a warp (weight_ring.cuh).
#pragma once

#include "gg/core/device.hpp"
#include "gg/cuda/stamps.hpp"

#define GG_DEVICE __device__ __forceinline__

namespace gg::cuda {

/// Whether kernels may start before their predecessor ends, and bulk copies exist.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
inline constexpr bool has_bulk_copies = true;
#else
inline constexpr bool has_bulk_copies = false;
#endif

/// Size in bytes or elements.
using Size = unsigned long long;

// Moments of a stage, for those who measure it.

#if defined(GG_STAMPS)
GG_DEVICE Size global_time() {
    Size time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time)::"memory");
    return time;
}
GG_DEVICE unsigned multiprocessor() {
    unsigned number;
    asm("mov.u32 %0, %%smid;" : "=r"(number));
    return number;
}
/// When the block's first thread was at each moment.
GG_DEVICE Size (&moment_times())[moments] {
    __shared__ Size times[moments];
    return times;
}
/// Notes that the block's first thread is there.
GG_DEVICE void mark(Moment moment) {
    if (threadIdx.x == 0) moment_times()[moment] = global_time();
}
#else
GG_DEVICE void mark(Moment) {}
#endif

// Dependent launch. Every block of every kernel in a chain calls wait_for_previous, and makes every global
// write, and every read of what the chain wrote, after it.

/// Returns when all kernels before this one in the stream have ended and their writes are visible.
GG_DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    mark(waited);
}

/// Waits a while that differs from block to block and from time to time, in builds with GG_JITTER: tests hold
/// that results do not depend on when a kernel of the chain runs.
GG_DEVICE void jitter() {
#if defined(GG_JITTER)
    unsigned time;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(time));
    const unsigned mixed = (time ^ (blockIdx.x * 0x9E3779B9u)) * 0x85EBCA6Bu;
    __nanosleep(mixed >> 20);
#endif
}

/// Lets the next kernel start as soon as every block of this one has called it or ended.
GG_DEVICE void launch_next() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
    jitter();
}

/// All that a block does which the stage does not need: it keeps its place on the multiprocessor until the
/// stage before has ended. Were it gone before the next stage's last block has come, two of those might share
/// this multiprocessor, and another would have none.
GG_DEVICE void stand_by() {
    launch_next();
    wait_for_previous();
}

// Memory. Data that an earlier kernel of the chain wrote is read past the first-level cache, which other
// blocks' writes do not reach.

template <class T>
GG_DEVICE T load_cg(const T* p) {
    return __ldcg(p);
}

/// The value that another kernel's block released, without waiting for that kernel's end.
GG_DEVICE int load_acquire(const int* p) {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
    return value;
}

/// Asks for the line at `p` to be brought to the second-level cache.
GG_DEVICE void prefetch_l2(const void* p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/// Makes this thread's writes visible to the device before its later ones: lighter than __threadfence.
GG_DEVICE void release_fence() {
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

// 16-bit floats.

/// Two floats as FP16, `low` in the low 16 bits; rounded to nearest, too large ones to infinity.
GG_DEVICE unsigned pack_half(float low, float high) {
    unsigned bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

/// The same as BF16.
GG_DEVICE unsigned pack_bfloat(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

/// FP16 bits to float.
GG_DEVICE float half_value(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
GG_DEVICE float low_half_value(unsigned bits) {
    return half_value(static_cast<unsigned short>(bits));
}
GG_DEVICE float high_half_value(unsigned bits) {
    return half_value(static_cast<unsigned short>(bits >> 16));
}
/// BF16 bits to float.
GG_DEVICE float low_bfloat_value(unsigned bits) {
    return float_from_bits(bits << 16);
}
GG_DEVICE float high_bfloat_value(unsigned bits) {
    return float_from_bits(bits & 0xFFFF0000u);
}

/// Products of two pairs of FP16.
GG_DEVICE unsigned multiply_half_pairs(unsigned a, unsigned b) {
    unsigned product;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

/// Sums of two pairs of FP16.
GG_DEVICE unsigned add_half_pairs(unsigned a, unsigned b) {
    unsigned sum;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
    return sum;
}

// Tensor cores: c += a b with a [16 rows][16], b [16][8 columns]. Lane 4g + t holds, of a, rows g and g + 8
// at k = 2t, 2t + 1 and 2t + 8, 2t + 9; of b, column g at the same k; of c, rows g and g + 8, columns 2t, 2t
// + 1.

GG_DEVICE void multiply_half(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                             unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

GG_DEVICE void multiply_bfloat(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                               unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Warps.

inline constexpr int warp_size = 32;
inline constexpr unsigned whole_warp = 0xFFFFFFFFu;

/// The sum over a warp, in every lane, always in the same order.
GG_DEVICE float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(whole_warp, value, distance);
    return value;
}

/// The largest or smallest number of a warp, in every lane.
GG_DEVICE unsigned warp_largest(unsigned value) {
    unsigned largest;
    asm volatile("redux.sync.max.u32 %0, %1, 0xffffffff;" : "=r"(largest) : "r"(value));
    return largest;
}
GG_DEVICE unsigned warp_smallest(unsigned value) {
    unsigned smallest;
    asm volatile("redux.sync.min.u32 %0, %1, 0xffffffff;" : "=r"(smallest) : "r"(value));
    return smallest;
}

/// The largest of a warp, in every lane.
GG_DEVICE float warp_max(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(whole_warp, value, distance);
        value = value > other ? value : other;
    }
    return value;
}

}  // namespace gg::cuda
