// SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020) and the clamped form of gpt-oss:
//   plain    y = gate sigmoid(gate) up
//   clamped  g = min(gate, 7), u = clamp(up, -7, 7), y = g sigmoid(1.702 g) (u + 1)
// Gated: two inputs, the products with the gate and the up matrix.
#pragma once

#include "gg/core/math.hpp"

namespace gg {

/// silu(gate) * up.
struct Swiglu {
    static constexpr bool gated = true;
    GG_HD GG_INLINE static float apply(float gate, float up) { return gate * sigmoid(gate) * up; }
};

/// gpt-oss's form. Its two constants are not in any file.
struct ClampedSwiglu {
    static constexpr bool gated = true;
    static constexpr float alpha = 1.702f;
    static constexpr float limit = 7.0f;
    GG_HD GG_INLINE static float apply(float gate, float up) {
        const float g = min(gate, limit);
        const float u = max(min(up, limit), -limit);
        return g * sigmoid(alpha * g) * (u + 1.0f);
    }
};

}  // namespace gg
