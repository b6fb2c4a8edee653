// Products of a warpgroup (wgmma, compute capability 9.0a): four warps multiply 64 rows of A, in their
// registers or in shared memory, by B [16 columns][tokens] in shared memory. Only units compiled for sm_90a
// run it.
//
// A: warp w has rows 16 w to 16 w + 15 in the registers of mma.m16n8k16. B: a token's 64 columns are 128
// bytes, eight tokens 1024 bytes, the 16-byte pieces of token i at piece c ^ (i % 8). A in shared memory lies
// as B, its rows as tokens. A transposed B has 64 columns' 128 bytes for each of 16 rows of the sum over k,
// so that 16 rows are 2048 bytes; otherwise the same. Sums: as of mma.m16n8k16, a group of four for every
// eight tokens.
#pragma once

#include "gg/cuda/copies.cuh"

namespace gg::cuda {

/// Whether this code can multiply by warpgroups. Where it cannot, stages of theirs are empty.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool has_warpgroups = true;
#else
inline constexpr bool has_warpgroups = false;
#endif
inline constexpr int warpgroup_size = 128, warpgroup_rows = 64;  ///< threads, and rows of A

/// Describes B that begins at `shared` (1024-byte aligned, plus 32 bytes for each 16 columns).
GG_DEVICE Size describe_tokens(const void* shared) {
    const Size address = (shared_address(shared) & 0x3FFFFu) >> 4;
    constexpr Size group_stride = 1024 >> 4, swizzle_128 = 1;
    return address | Size{1} << 16 | group_stride << 32 | swizzle_128 << 62;
}

/// Before a batch of products: registers that were written are seen by them.
GG_DEVICE void warpgroup_arrive() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
GG_DEVICE void warpgroup_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most `pending` batches are under way.
template <int pending>
GG_DEVICE void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/// Changes the registers of every thread of the warpgroup, from what the kernel's launch gave: a multiple
/// of 8.
template <int registers, bool more>
GG_DEVICE void warpgroup_registers() {
    if constexpr (more)
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
    else
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

#define GG_SUMS4(c, i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define GG_SUMS16(c, i) GG_SUMS4(c, i), GG_SUMS4(c, i + 1), GG_SUMS4(c, i + 2), GG_SUMS4(c, i + 3)

#define GG_FIRST_32                                                               \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, " \
    "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define GG_SECOND_32                                                                        \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, " \
    "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/// The compiler sees these registers written here: what uses them stays behind the wait before.
template <int groups>
GG_DEVICE void warpgroup_settle(float (&c)[groups][4]) {
#pragma unroll
    for (int i = 0; i < groups; ++i) asm volatile("" : GG_SUMS4(c, i)::"memory");
}

/// Sums of 64 or 128 columns or tokens: c += A B, or c = A B, over 16 of the other; A in registers.
template <bool accumulate, bool transposed = false>
GG_DEVICE void warpgroup_multiply(float (&c)[8][4], const unsigned (&a)[4], Size b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{" GG_FIRST_32
        "}, "
        "{%32, %33, %34, %35}, %36, %37, 1, 1, %38;"
        : GG_SUMS16(c, 0), GG_SUMS16(c, 4)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int(accumulate)), "n"(int(transposed)));
}
template <bool accumulate, bool transposed = false>
GG_DEVICE void warpgroup_multiply(float (&c)[16][4], const unsigned (&a)[4], Size b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{" GG_FIRST_32 ", " GG_SECOND_32
        "}, "
        "{%64, %65, %66, %67}, %68, %69, 1, 1, %70;"
        : GG_SUMS16(c, 0), GG_SUMS16(c, 4), GG_SUMS16(c, 8), GG_SUMS16(c, 12)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int(accumulate)), "n"(int(transposed)));
}
/// The same with A in shared memory.
template <bool accumulate, bool transposed = false>
GG_DEVICE void warpgroup_multiply(float (&c)[8][4], Size a, Size b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{" GG_FIRST_32
        "}, "
        "%32, %33, %34, 1, 1, 0, %35;"
        : GG_SUMS16(c, 0), GG_SUMS16(c, 4)
        : "l"(a), "l"(b), "n"(int(accumulate)), "n"(int(transposed)));
}
template <bool accumulate, bool transposed = false>
GG_DEVICE void warpgroup_multiply(float (&c)[16][4], Size a, Size b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{" GG_FIRST_32 ", " GG_SECOND_32
        "}, "
        "%64, %65, %66, 1, 1, 0, %67;"
        : GG_SUMS16(c, 0), GG_SUMS16(c, 4), GG_SUMS16(c, 8), GG_SUMS16(c, 12)
        : "l"(a), "l"(b), "n"(int(accumulate)), "n"(int(transposed)));
}

#undef GG_SUMS16
#undef GG_SUMS4
#undef GG_FIRST_32
#undef GG_SECOND_32

}  // namespace gg::cuda
