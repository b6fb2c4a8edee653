// RmsNorm: y_i = x_i * s * gain_i,  s = 1 / sqrt(mean(x^2) + epsilon), over a row of `hidden` float32.
//
// All in float32, the gain applied last, as in Zhang and Sennrich, "Root Mean Square Layer Normalization"
// (2019), and in Hugging Face's implementations. Fused with the residual: x += delta first, then the same.
// Tensor NAME.weight [hidden]. Bytes moved: 2 rows in and out, 4 when fused; the gain once.
#pragma once

#include "gg/core/math.hpp"

namespace gg {

struct RmsNorm {
    template <class Store>
    struct Weights {
        typename Store::Vector gain;  ///< [hidden]
    };

    /// Whether the mean is subtracted first.
    static constexpr bool centred = false;

    /// Names the tensors: `name` is the norm's name in the file, such as "attn_norm".
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, const char* name, Weights<Store>& weights, const Dims& dims) {
        visitor.vector(name, "weight", weights.gain, dims.hidden);
    }

    /// The row's factor from its sum of squares.
    GG_HD GG_INLINE static float scale(float sum_of_squares, int width, float epsilon) {
        return 1.0f / sqrt(sum_of_squares / static_cast<float>(width) + epsilon);
    }

    /// The weights of one element, to be read ahead of its use.
    struct Element {
        float gain;
    };
    template <class Store>
    GG_HD GG_INLINE static Element element(const Weights<Store>& weights, int i) {
        return {weights.gain[i]};
    }

    /// One element; `mean` is 0 here.
    GG_HD GG_INLINE static float apply(const Element& element, float x, float /*mean*/, float scale) {
        return x * scale * element.gain;
    }
    template <class Store>
    GG_HD GG_INLINE static float apply(const Weights<Store>& weights, int i, float x, float mean,
                                       float scale) {
        return apply(element(weights, i), x, mean, scale);
    }
};

}  // namespace gg
