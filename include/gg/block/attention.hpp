// Attention: causal, grouped: query head h reads key head h / (heads / kv_heads).
//   q = W_q n + b_q,  k, v likewise;  policies transform q and k heads;  s_ij = q_i . k_j / sqrt(head_dim)
//   p_ij = exp(s_ij - m) / (sum_j exp(s_ij - m) + exp(sink_h - m)),  m = max(max_j s_ij, sink_h)
//   out = W_o concat_h(sum_j p_ij v_j) + b_o,  over the keys j that row i sees: i - window < j <= i
// kv_heads = heads is multi-head attention, 1 < kv_heads < heads grouped-query attention.
//
// Tensors attn_q.weight [hidden, heads * head_dim], attn_k, attn_v.weight [hidden, kv_heads * head_dim],
// attn_output.weight [heads * head_dim, hidden] and with Bias a .bias each; with FusedQkv attn_qkv in place
// of the first three. Bytes moved per token: the weights once, the cached keys and values a row sees once.
#pragma once

#include "gg/block/attention_policy.hpp"
#include "gg/core/math.hpp"

namespace gg {

namespace detail {

/// A policy's tensors as a base class of its own: two policies without tensors must not share a base.
template <class Policy, class Store>
struct PolicyWeights : Policy::template Weights<Store> {};

/// The tensors that every attention has.
template <class Store>
struct ProjectionWeights {
    typename Store::Matrix q, k, v, output;
    typename Store::Vector q_bias, k_bias, v_bias, output_bias;  ///< empty without Bias
};

}  // namespace detail

template <class... Policies>
struct Attention {
    static constexpr bool has_bias = (Policies::bias || ...);
    static constexpr bool has_sinks = (Policies::sinks || ...);
    static constexpr bool has_rotary = (Policies::rotary || ...);
    static constexpr bool has_fused_qkv = (Policies::fused_qkv || ...);
    static_assert((static_cast<int>(Policies::rotary) + ... + 0) <= 1,
                  "attention takes one rotary embedding");

    template <class Store>
    struct Weights : detail::ProjectionWeights<Store>, detail::PolicyWeights<Policies, Store>... {};

    /// Names the tensors; biases and policies as composed.
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, Weights<Store>& w, const Dims& dims) {
        const int q_rows = dims.heads * dims.head_dim, kv_rows = dims.kv_heads * dims.head_dim;
        if constexpr (has_fused_qkv) {
            const int all = q_rows + 2 * kv_rows;
            visitor.matrix_rows("attn_qkv", "weight", w.q, dims.hidden, all, 0, q_rows);
            visitor.matrix_rows("attn_qkv", "weight", w.k, dims.hidden, all, q_rows, kv_rows);
            visitor.matrix_rows("attn_qkv", "weight", w.v, dims.hidden, all, q_rows + kv_rows, kv_rows);
            if constexpr (has_bias) {
                visitor.vector_part("attn_qkv", "bias", w.q_bias, all, 0, q_rows);
                visitor.vector_part("attn_qkv", "bias", w.k_bias, all, q_rows, kv_rows);
                visitor.vector_part("attn_qkv", "bias", w.v_bias, all, q_rows + kv_rows, kv_rows);
            }
        } else {
            visitor.matrix("attn_q", "weight", w.q, dims.hidden, q_rows);
            visitor.matrix("attn_k", "weight", w.k, dims.hidden, kv_rows);
            visitor.matrix("attn_v", "weight", w.v, dims.hidden, kv_rows);
            if constexpr (has_bias) {
                visitor.vector("attn_q", "bias", w.q_bias, q_rows);
                visitor.vector("attn_k", "bias", w.k_bias, kv_rows);
                visitor.vector("attn_v", "bias", w.v_bias, kv_rows);
            }
        }
        visitor.matrix("attn_output", "weight", w.output, q_rows, dims.hidden);
        if constexpr (has_bias) visitor.vector("attn_output", "bias", w.output_bias, dims.hidden);
        (Policies::visit(visitor, static_cast<detail::PolicyWeights<Policies, Store>&>(w), dims), ...);
    }

    /// Applies the policies to one query or key head [head_dim] in the order in which they are composed.
    template <class Store, class Dims>
    GG_HD GG_INLINE static void transform([[maybe_unused]] const Weights<Store>& w,
                                          [[maybe_unused]] const Dims& dims,
                                          [[maybe_unused]] const HeadPlace& head, [[maybe_unused]] float* x) {
        (Policies::transform(static_cast<const detail::PolicyWeights<Policies, Store>&>(w), dims, head, x),
         ...);
    }

    /// Keys that a row of this layer sees, itself included; 0 means all.
    template <class Dims>
    GG_HOST static int window([[maybe_unused]] const Dims& dims, [[maybe_unused]] int layer) {
        int least = 0;
        ((least = narrower(least, Policies::window(dims, layer))), ...);
        return least;
    }

    /// Calls `f(policy)` for the rotary policy, if there is one.
    template <class F>
    GG_HOST static void with_rotary(F&& f) {
        (call_if_rotary<Policies>(f), ...);
    }

  private:
    GG_HOST static constexpr int narrower(int a, int b) { return a == 0 ? b : b == 0 ? a : a < b ? a : b; }

    template <class Policy, class F>
    GG_HOST static void call_if_rotary(F& f) {
        if constexpr (Policy::rotary) f(Policy{});
    }
};

}  // namespace gg
