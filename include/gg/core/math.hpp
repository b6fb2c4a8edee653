// Elementary functions in float32, one definition for host and device: no branch, no table, so that the
// compiler vectorises a loop over them and both sides round alike (up to contraction into fma).
//
//   exp    2^n * p(r), x = n ln2 + r, |r| <= ln2/2; p of degree 7; relative error below 2 ulp
//   log    n ln2 + log(m), m in [sqrt(1/2), sqrt(2)); polynomial of degree 9; error below 2 ulp
//   erfc   t exp(-z^2 + P(t)), t = 1/(1 + z/2), P of degree 9; relative error at most (8 + 2.2 x^2) 2^-24 for
//          x > 0, since the exponent is rounded at the magnitude of x^2
//
// Sources: Cephes (exp, log), Press et al., Numerical Recipes, section 6.2 (erfc). Coefficients only.
#pragma once

#include "gg/core/device.hpp"

namespace gg {

namespace detail {

/// Adding this to a float of magnitude below 2^22 rounds it to an integer, held in the low mantissa bits.
inline constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23

/// 2^n for n in [-126, 127].
GG_HD GG_INLINE float power_of_two(int n) {
    return float_from_bits(static_cast<unsigned>(n + 127) << 23);
}

}  // namespace detail

/// Not a number.
GG_HD GG_INLINE float quiet_nan() {
    return float_from_bits(0x7FC00000u);
}
/// Positive infinity.
GG_HD GG_INLINE float infinity() {
    return float_from_bits(0x7F800000u);
}

/// e^x. Overflows to infinity, underflows through the subnormals to 0; exp(-infinity) is 0.
GG_HD GG_INLINE float exp(float x) {
    const float low = x < -110.0f ? -110.0f : x;
    const float clamped = low > 90.0f ? 90.0f : low;
    const float shifted = clamped * 1.44269504088896341f + detail::round_magic;
    const float n = shifted - detail::round_magic;
    const int exponent = static_cast<int>(float_bits(shifted) - float_bits(detail::round_magic));
    float r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    // Two factors, since 2^n alone leaves the range of normal numbers at both ends.
    const int half = exponent >> 1;
    return p * detail::power_of_two(half) * detail::power_of_two(exponent - half);
}

/// Natural logarithm; log(0) is -infinity, negative numbers give NaN, infinity gives infinity.
GG_HD GG_INLINE float log(float x) {
    const bool tiny = x < 1.17549435e-38f;
    const float scaled = tiny ? x * 8388608.0f : x;
    const unsigned bits = float_bits(scaled);
    // Subtracting the bits of sqrt(1/2) makes the exponent field count from there.
    const int n = static_cast<int>(bits - 0x3F3504F3u) >> 23;
    const float m = float_from_bits(bits - (static_cast<unsigned>(n) << 23)) - 1.0f;
    const float e = static_cast<float>(n) - (tiny ? 23.0f : 0.0f);
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const float square = m * m;
    float y = p * m * square;
    y = y - e * 2.12194440e-4f - 0.5f * square;
    y = m + y + e * 0.693359375f;
    y = x == infinity() ? x : y;
    y = x == 0.0f ? -infinity() : y;
    return x >= 0.0f ? y : quiet_nan();
}

/// 1 / x, correctly rounded on the host, within 1 ulp on the device.
GG_HD GG_INLINE float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return 1.0f / x;
#endif
}

/// 1 / (1 + e^-x), without loss for large negative x; 0 below -88.7.
GG_HD GG_INLINE float sigmoid(float x) {
    return reciprocal(1.0f + exp(-x));
}

/// The complementary error function 2/sqrt(pi) * integral of e^(-t^2) from x to infinity.
GG_HD GG_INLINE float erfc(float x) {
    const float z = x < 0.0f ? -x : x;
    const float t = 1.0f / (1.0f + 0.5f * z);
    float p = 0.17087277f;
    p = p * t - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    p = p * t - 1.26551223f;
    const float tail = t * exp(p - z * z);
    return x < 0.0f ? 2.0f - tail : tail;
}

/// Square root, correctly rounded on the host and on the device.
GG_HD GG_INLINE float sqrt(float x) {
#if defined(__CUDA_ARCH__)
    return __fsqrt_rn(x);
#else
    return __builtin_sqrtf(x);
#endif
}

/// The larger of two; the second if the first is NaN.
GG_HD GG_INLINE float max(float a, float b) {
    return a > b ? a : b;
}
/// The smaller of two; the second if the first is NaN.
GG_HD GG_INLINE float min(float a, float b) {
    return a < b ? a : b;
}

}  // namespace gg
