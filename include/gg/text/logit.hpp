// What sampling does to one logit: shared by the Sampler on the host and by its twin on the device, so that
// both pick the same id. gg/text/sampler.hpp says how they are composed. Includes nothing from the system.
//
// The two sides agree bit for bit only if products are not fused into sums: compile sampling code with
// -fmad=false (nvcc, NVRTC), and where the host's FMA instructions are enabled with -ffp-contract=off.
#pragma once

#include "gg/core/device.hpp"
#include "gg/core/math.hpp"

namespace gg::text {

/// Fixed-point probability mass: exp(scaled) in units of 2^-40. Sums of 2^23 of them fit.
inline constexpr float mass_one = 0x1p40F;

/// Repetition penalty: a positive logit is divided by it, a negative one multiplied.
GG_HD inline float penalize(float logit, float penalty) {
    if (logit > 0.0F) return logit / penalty;
#if defined(__CUDA_ARCH__)
    return __fmul_rn(logit, penalty);
#else
    return logit * penalty;
#endif
}

/// A key that orders ids by descending logit, equal logits (-0 equals 0) by ascending id: the larger key
/// comes first. Never 0 for a logit that is not a NaN.
GG_HD inline unsigned long long order_key(float logit, unsigned id) {
    const unsigned bits = float_bits(logit == 0.0F ? 0.0F : logit);
    const unsigned ordered = bits & 0x80000000U ? ~bits : bits | 0x80000000U;
    return static_cast<unsigned long long>(ordered) << 32 | (0xFFFFFFFFU - id);
}

/// The id in an order_key.
GG_HD inline unsigned key_id(unsigned long long key) {
    return 0xFFFFFFFFU - static_cast<unsigned>(key);
}

/// The logit in an order_key.
GG_HD inline float key_logit(unsigned long long key) {
    const unsigned ordered = static_cast<unsigned>(key >> 32);
    return float_from_bits(ordered & 0x80000000U ? ordered & 0x7FFFFFFFU : ~ordered);
}

/// (logit - largest) / temperature: at most 0, and 0 for the largest even if it is infinite.
GG_HD inline float scale_logit(float logit, float largest, float temperature) {
    return logit == largest ? 0.0F : (logit - largest) / temperature;
}

/// exp(scaled) as fixed point, rounded down. Sums are the same in any order.
GG_HD inline unsigned long long probability_mass(float scaled) {
    return static_cast<unsigned long long>(gg::exp(scaled) * mass_one);
}

/// The mass that top-p must reach, given the sum of all masses.
GG_HD inline unsigned long long target_mass(float top_p, unsigned long long total) {
    return static_cast<unsigned long long>(static_cast<double>(top_p) * static_cast<double>(total));
}

}  // namespace gg::text
