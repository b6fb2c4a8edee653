// LayerNorm: y_i = (x_i - m) * s * gain_i + bias_i,  m = mean(x),  s = 1 / sqrt(mean((x - m)^2) + epsilon),
// over a row of `hidden` float32; the variance is taken about the mean in a second pass, not as a
// difference of squares. Source: Ba, Kiros and Hinton, "Layer Normalization" (2016).
//
// Tensors NAME.weight and NAME.bias [hidden]. Bytes moved as in rms_norm.hpp, and the bias.
#pragma once

#include "gg/core/math.hpp"

namespace gg {

struct LayerNorm {
    template <class Store>
    struct Weights {
        typename Store::Vector gain;  ///< [hidden]
        typename Store::Vector bias;  ///< [hidden]
    };

    /// Whether the mean is subtracted first.
    static constexpr bool centred = true;

    /// Names the tensors: `name` is the norm's name in the file, such as "attn_norm".
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, const char* name, Weights<Store>& weights, const Dims& dims) {
        visitor.vector(name, "weight", weights.gain, dims.hidden);
        visitor.vector(name, "bias", weights.bias, dims.hidden);
    }

    /// The row's factor from its sum of squared deviations.
    GG_HD GG_INLINE static float scale(float sum_of_squares, int width, float epsilon) {
        return 1.0f / sqrt(sum_of_squares / static_cast<float>(width) + epsilon);
    }

    /// The weights of one element, to be read ahead of its use.
    struct Element {
        float gain, bias;
    };
    template <class Store>
    GG_HD GG_INLINE static Element element(const Weights<Store>& weights, int i) {
        return {weights.gain[i], weights.bias[i]};
    }

    /// One element.
    GG_HD GG_INLINE static float apply(const Element& element, float x, float mean, float scale) {
        return (x - mean) * scale * element.gain + element.bias;
    }
    template <class Store>
    GG_HD GG_INLINE static float apply(const Weights<Store>& weights, int i, float x, float mean,
                                       float scale) {
        return apply(element(weights, i), x, mean, scale);
    }
};

}  // namespace gg
