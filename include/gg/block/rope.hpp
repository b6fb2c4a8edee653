// RotaryEmbedding: pair i of a head (i < head_dim / 2) is turned by the angle position * f_i:
//   o1 = (x1 cos - x2 sin),  o2 = (x2 cos + x1 sin),  cos and sin both times a magnitude.
//
// Pairs:        half-split (i, i + head_dim/2), GGUF's NEOX; adjacent (2i, 2i+1), GGUF's NORM.
// Frequencies:  plain, f_i = base^(-2i/head_dim) (Su et al., "RoFormer", 2021), or YaRN by parts (Peng et
// al.,
//               2023) as Hugging Face has it, without truncation of the bounds:
//                 bound(beta) = head_dim ln(original_context / (2 pi beta)) / (2 ln base)
//                 ramp_i = clamp((i - bound(fast)) / (bound(slow) - bound(fast)), 0, 1)
//                 f_i = e_i (1 - ramp_i) + e_i / factor * ramp_i,   magnitude 0.1 ln(factor) + 1
// Angles are formed in double: at position 100000 a float32 frequency would be off by 0.01 radian.
#pragma once

#include "gg/block/attention_policy.hpp"

namespace gg {

/// Pair i is elements (i, i + half).
struct HalfSplitPairs {
    GG_HD GG_INLINE static int first(int i, int /*half*/) { return i; }
    GG_HD GG_INLINE static int second(int i, int half) { return i + half; }
};

/// Pair i is elements (2i, 2i + 1).
struct AdjacentPairs {
    GG_HD GG_INLINE static int first(int i, int /*half*/) { return 2 * i; }
    GG_HD GG_INLINE static int second(int i, int /*half*/) { return 2 * i + 1; }
};

/// f_i = base^(-2i/head_dim).
struct PlainFrequencies {
    /// Radians per position of pair i.
    template <class Dims>
    GG_HOST static double inverse_frequency(const Dims& dims, int i) {
        return __builtin_pow(dims.rope_base, -2.0 * i / dims.head_dim);
    }
    /// The factor on cos and sin.
    template <class Dims>
    GG_HOST static double magnitude(const Dims&) {
        return 1.0;
    }
};

/// YaRN by parts, not truncated.
struct YarnFrequencies {
    /// The (fractional) pair that turns `rotations` times within the original context.
    template <class Dims>
    GG_HOST static double bound(const Dims& dims, double rotations) {
        const double pi = 3.14159265358979323846;
        return dims.head_dim * __builtin_log(dims.yarn_original_context / (rotations * 2.0 * pi)) /
               (2.0 * __builtin_log(dims.rope_base));
    }
    /// Radians per position of pair i.
    template <class Dims>
    GG_HOST static double inverse_frequency(const Dims& dims, int i) {
        const double extrapolated = PlainFrequencies::inverse_frequency(dims, i);
        double low = bound(dims, dims.yarn_beta_fast), high = bound(dims, dims.yarn_beta_slow);
        low = low < 0.0 ? 0.0 : low;
        high = high > dims.head_dim - 1 ? dims.head_dim - 1 : high;
        if (low == high) high += 0.001;
        double ramp = (i - low) / (high - low);
        ramp = ramp < 0.0 ? 0.0 : ramp > 1.0 ? 1.0 : ramp;
        return extrapolated * (1.0 - ramp) + extrapolated / dims.yarn_factor * ramp;
    }
    /// The factor on cos and sin.
    template <class Dims>
    GG_HOST static double magnitude(const Dims& dims) {
        return dims.yarn_factor > 1.0 ? 0.1 * __builtin_log(dims.yarn_factor) + 1.0 : 1.0;
    }
};

/// The rotary policy of attention. The backend tabulates cos and sin of the rows at hand from
/// inverse_frequency and magnitude; transform applies them.
template <class Pairs, class Frequencies>
struct RotaryEmbedding : AttentionPolicy, Frequencies {
    static constexpr bool rotary = true;

    template <class Weights, class Dims>
    GG_HD GG_INLINE static void transform(const Weights&, const Dims& dims, const HeadPlace& head, float* x) {
        const int half = dims.head_dim / 2;
        for (int i = 0; i < half; ++i) {
            const float x1 = x[Pairs::first(i, half)], x2 = x[Pairs::second(i, half)];
            x[Pairs::first(i, half)] = x1 * head.cosines[i] - x2 * head.sines[i];
            x[Pairs::second(i, half)] = x2 * head.cosines[i] + x1 * head.sines[i];
        }
    }
};

using Rope = RotaryEmbedding<AdjacentPairs, PlainFrequencies>;            ///< Llama in GGUF
using HalfSplitRope = RotaryEmbedding<HalfSplitPairs, PlainFrequencies>;  ///< GPT-NeoX, Qwen
using YarnRope = RotaryEmbedding<HalfSplitPairs, YarnFrequencies>;        ///< gpt-oss

}  // namespace gg
