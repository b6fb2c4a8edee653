// Copies to shared memory in the background, and the barriers that tell of their end: by threads, 4 or 16
// bytes each (cp.async), or in bulk by the copy engine (cp.async.bulk, compute capability 9.0: elsewhere its
// functions do nothing and must not be called for their effect).
#pragma once

#include "gg/cuda/primitives.cuh"

namespace gg::cuda {

/// A shared-memory address as instructions take it.
GG_DEVICE unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

/// Copies 16 bytes to shared memory; both addresses are multiples of 16.
GG_DEVICE void copy_async_16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global)
                 : "memory");
}

/// Copies 4 bytes, likewise.
GG_DEVICE void copy_async_4(void* shared, const void* global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(shared)), "l"(global)
                 : "memory");
}

/// Copies 16 bytes, or 16 zero bytes if not `valid`.
GG_DEVICE void copy_async_16_or_zero(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

/// Ends a group of copies of this thread.
GG_DEVICE void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most `pending` groups of this thread's copies are under way.
template <int pending>
GG_DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Barriers in shared memory, for bulk copies.

GG_DEVICE void barrier_init(Size* barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
                 : "memory");
}

/// Makes initialised barriers visible to the copy engine.
GG_DEVICE void barrier_init_fence() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/// Arrives and announces `bytes` that a copy will deliver.
GG_DEVICE void barrier_expect([[maybe_unused]] Size* barrier, [[maybe_unused]] unsigned bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
#endif
}

/// Arrives.
GG_DEVICE void barrier_arrive([[maybe_unused]] Size* barrier) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

/// Waits for the end of the phase of the given parity.
GG_DEVICE void barrier_wait([[maybe_unused]] Size* barrier, [[maybe_unused]] unsigned parity) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred done;\n"
        "  again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "  @!done bra again; }" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
#endif
}

/// Orders this thread's ordinary accesses to shared memory before the copy engine's.
GG_DEVICE void copy_engine_fence() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// Copies `bytes` (a multiple of 16) that nothing will read again to shared memory in the background; the
/// barrier counts them. The second-level cache gives them up first, and keeps what stages leave each other.
GG_DEVICE void bulk_copy([[maybe_unused]] void* shared, [[maybe_unused]] const void* global,
                         [[maybe_unused]] unsigned bytes, [[maybe_unused]] Size* barrier) {
#if __CUDA_ARCH__ >= 900
    // What createpolicy.fractional.L2::evict_first gives; as a constant it takes no registers.
    constexpr Size evict_first = 0x12F0000000000000ull;
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
        " [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(evict_first)
        : "memory");
#endif
}

/// Waits at named barrier `id` until `threads` threads of the block have come, those that only arrive
/// included.
GG_DEVICE void block_barrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/// Counts as having come to named barrier `id`, and goes on.
GG_DEVICE void block_barrier_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace gg::cuda
