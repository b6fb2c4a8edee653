// GELU, the Gaussian error linear unit (Hendrycks and Gimpel, 2016), both forms in use:
//   exact  x Phi(x) = x erfc(-x / sqrt(2)) / 2
//   tanh   x (1 + tanh(u)) / 2 = x sigmoid(2u),  u = sqrt(2/pi) (x + 0.044715 x^3)
// Written by erfc and sigmoid, neither loses precision for large negative x. Not gated: one input.
#pragma once

#include "gg/core/math.hpp"

namespace gg {

/// The tanh form, GPT-2's.
struct GeluTanh {
    static constexpr bool gated = false;
    GG_HD GG_INLINE static float apply(float x) {
        const float u = 0.79788456080286536f * (x + 0.044715f * x * x * x);
        return x * sigmoid(2.0f * u);
    }
};

/// The exact form.
struct Gelu {
    static constexpr bool gated = false;
    GG_HD GG_INLINE static float apply(float x) { return 0.5f * x * erfc(-0.70710678118654752f * x); }
};

}  // namespace gg
