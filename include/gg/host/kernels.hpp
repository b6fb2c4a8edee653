// The host backend's inner loops, compiled for several instruction sets; the one to run is chosen when the
// program starts. host/kernels/*.inl hold the loops, written once; each set is a namespace. On processors
// other than x86-64 there is the portable set alone, which the compiler vectorises for its target.
#pragma once

#include <cstddef>
#include <type_traits>

#include "gg/core/math.hpp"
#include "gg/format/visit.hpp"
#include "gg/format/x86.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace gg::host {

/// Instruction sets that the loops are compiled for.
enum class InstructionSet {
    portable,  ///< what the compiler assumes for its target: SSE2 on x86-64
    avx2,      ///< AVX2, FMA, F16C
    avx512,    ///< AVX-512 F, BW, VL, DQ
};

/// The best set that this processor and its operating system have.
inline InstructionSet best_instruction_set() {
#if defined(__x86_64__)
    // clang 14 does not know the name "f16c".
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
    if (!f16c) return InstructionSet::portable;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("fma"))
        return InstructionSet::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::avx2;
#endif
    return InstructionSet::portable;
}

/// The set's name for messages.
constexpr const char* to_string(InstructionSet set) {
    return set == InstructionSet::avx512 ? "AVX-512" : set == InstructionSet::avx2 ? "AVX2" : "portable";
}

/// What attend needs: G query heads over the keys first .. last (absolute positions, inclusive).
struct Attend {
    const float* query;  ///< [G][head_dim]
    const float* keys;   ///< the key head's tiles
    const float* values;
    const float* sink;  ///< [G], or null
    float* scores;      ///< scratch [G][score_stride], score_stride >= 16 * tiles
    float* out;         ///< [G][head_dim]
    std::size_t score_stride;
    long first, last, capacity;
    int head_dim, value_stride;  ///< value_stride: head_dim rounded up to 16, the rest zeros
    float scale;
};

}  // namespace gg::host

#define GG_TARGET
#define GG_LANES_BYTES 16
namespace gg::host::portable {
using DecodeTarget = format::Portable;
#include "gg/host/kernels/all.inl"
}  // namespace gg::host::portable
#undef GG_TARGET
#undef GG_LANES_BYTES

#if defined(__x86_64__)
#define GG_TARGET __attribute__((target("avx2,fma,f16c")))
#define GG_LANES_BYTES 32
namespace gg::host::avx2 {
using DecodeTarget = format::Avx2;
#include "gg/host/kernels/all.inl"
}  // namespace gg::host::avx2
#undef GG_TARGET
#undef GG_LANES_BYTES

#define GG_TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")))
#define GG_LANES_BYTES 64
namespace gg::host::avx512 {
using DecodeTarget = format::Avx512;
#include "gg/host/kernels/all.inl"
}  // namespace gg::host::avx512
#undef GG_TARGET
#undef GG_LANES_BYTES

/// Runs `call`, an expression that begins with a name of the kernels, in the namespace of `set`.
#define GG_HOST_DISPATCH(set, ...)                              \
    do {                                                        \
        if ((set) == ::gg::host::InstructionSet::avx512) {      \
            ::gg::host::avx512::__VA_ARGS__;                    \
        } else if ((set) == ::gg::host::InstructionSet::avx2) { \
            ::gg::host::avx2::__VA_ARGS__;                      \
        } else {                                                \
            ::gg::host::portable::__VA_ARGS__;                  \
        }                                                       \
    } while (false)
#else
#define GG_HOST_DISPATCH(set, ...) ::gg::host::portable::__VA_ARGS__
#endif
