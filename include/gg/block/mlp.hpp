// Mlp, the dense feed-forward block: with a gated activation y = W_down a(W_gate n, W_up n), else
// y = W_down a(W_up n); with Bias each product adds its own.
//
// Tensors ffn_up.weight [hidden, feed_forward], ffn_down.weight [feed_forward, hidden], gated also
// ffn_gate.weight; with Bias a .bias each. Bytes moved per token: the weights once.
#pragma once

#include "gg/block/attention_policy.hpp"

namespace gg {

/// A block without biases where Bias could stand.
struct NoBias {
    static constexpr bool bias = false;
};

template <class Activation, class BiasPolicy = NoBias>
struct Mlp {
    static constexpr bool has_bias = BiasPolicy::bias;

    template <class Store>
    struct Weights {
        typename Store::Matrix gate, up, down;                 ///< gate is empty if not gated
        typename Store::Vector gate_bias, up_bias, down_bias;  ///< empty without Bias
    };

    /// Names the tensors.
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, Weights<Store>& w, const Dims& dims) {
        if constexpr (Activation::gated)
            visitor.matrix("ffn_gate", "weight", w.gate, dims.hidden, dims.feed_forward);
        visitor.matrix("ffn_up", "weight", w.up, dims.hidden, dims.feed_forward);
        visitor.matrix("ffn_down", "weight", w.down, dims.feed_forward, dims.hidden);
        if constexpr (has_bias) {
            if constexpr (Activation::gated)
                visitor.vector("ffn_gate", "bias", w.gate_bias, dims.feed_forward);
            visitor.vector("ffn_up", "bias", w.up_bias, dims.feed_forward);
            visitor.vector("ffn_down", "bias", w.down_bias, dims.hidden);
        }
    }
};

}  // namespace gg
