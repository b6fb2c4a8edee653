// What code shared by host and device needs from the compiler. Includes nothing, so that a run-time
// compiler without any toolkit header can read it.
#pragma once

#if defined(__CUDACC__)
#define GG_HD __host__ __device__
#define GG_INLINE __forceinline__
#else
#define GG_HD
#define GG_INLINE inline __attribute__((always_inline))
#endif

/// A function for the host in a header that device code includes too: the run-time compiler takes none
/// without an execution space.
#if defined(__CUDACC_RTC__)
#define GG_HOST __device__
#else
#define GG_HOST
#endif

namespace gg {

/// The bits of a float as an integer.
GG_HD GG_INLINE unsigned float_bits(float value) {
#if defined(__CUDA_ARCH__)
    return __float_as_uint(value);
#else
    return __builtin_bit_cast(unsigned, value);
#endif
}

/// The float that has the given bits.
GG_HD GG_INLINE float float_from_bits(unsigned bits) {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    return __builtin_bit_cast(float, bits);
#endif
}

}  // namespace gg
