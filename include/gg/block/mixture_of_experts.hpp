// MixtureOfExperts: a router with bias picks experts_used of the experts for each row (router.hpp), each of
// them a gated Mlp of its own: y = sum_i weight_i (W_down_i a(W_gate_i n + b, W_up_i n + b) + b_down_i).
//
// The down bias is added before the weight; the sum runs in rank order. Tensors ffn_gate_inp.weight
// [hidden, experts], ffn_{gate,up}_exps.weight [hidden, expert_feed_forward, experts], ffn_down_exps.weight
// [expert_feed_forward, hidden, experts]; with Bias ffn_gate_inp.bias [experts], ffn_{gate,up}_exps.bias
// [expert_feed_forward, experts], ffn_down_exps.bias [hidden, experts]. Bytes moved per token: the router and
// experts_used of the experts.
#pragma once

#include "gg/block/mlp.hpp"
#include "gg/block/router.hpp"

namespace gg {

template <class Activation, class BiasPolicy = NoBias>
struct MixtureOfExperts {
    static_assert(Activation::gated, "experts take a gated activation");
    static constexpr bool has_bias = BiasPolicy::bias;

    template <class Store>
    struct Weights {
        typename Store::Matrix router;  ///< [hidden, experts]
        typename Store::Matrices gate, up, down;
        typename Store::Vector router_bias;                    ///< [experts]
        typename Store::Vector gate_bias, up_bias, down_bias;  ///< one row an expert
    };

    /// Names the tensors.
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, Weights<Store>& w, const Dims& dims) {
        const int width = dims.expert_feed_forward, count = dims.experts;
        visitor.matrix("ffn_gate_inp", "weight", w.router, dims.hidden, count);
        visitor.matrices("ffn_gate_exps", "weight", w.gate, dims.hidden, width, count);
        visitor.matrices("ffn_up_exps", "weight", w.up, dims.hidden, width, count);
        visitor.matrices("ffn_down_exps", "weight", w.down, width, dims.hidden, count);
        if constexpr (has_bias) {
            visitor.vector("ffn_gate_inp", "bias", w.router_bias, count);
            visitor.vectors("ffn_gate_exps", "bias", w.gate_bias, width, count);
            visitor.vectors("ffn_up_exps", "bias", w.up_bias, width, count);
            visitor.vectors("ffn_down_exps", "bias", w.down_bias, dims.hidden, count);
        }
    }
};

}  // namespace gg
