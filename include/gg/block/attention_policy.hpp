// What may be added to attention: positions, sinks, windows, biases, norms of queries and keys. Attention
// takes any number of policies and asks each one in turn; a policy overrides what concerns it and inherits
// the rest from here. User code adds its own in the same way.
#pragma once

#include "gg/core/device.hpp"

namespace gg {

/// One head of one row on its way from the projection to the products.
struct HeadPlace {
    int index;             ///< query head, or key head if is_key
    bool is_key;           ///< keys and queries are both transformed; values are not
    const float* cosines;  ///< [head_dim / 2] of this row's position, from the rotary policy; else null
    const float* sines;    ///< likewise
};

/// Does nothing. Every policy derives from it.
struct AttentionPolicy {
    /// The policy's own tensors.
    template <class Store>
    struct Weights {};

    static constexpr bool rotary = false;  ///< fills cosines and sines: has inverse_frequency and magnitude
    static constexpr bool sinks = false;   ///< adds sink(weights, head) to the softmax's denominator
    static constexpr bool bias = false;    ///< q, k, v and the output have biases
    static constexpr bool fused_qkv = false;  ///< q, k and v are rows of one tensor, attn_qkv

    /// Names the policy's tensors.
    template <class Visitor, class Weights, class Dims>
    GG_HOST static void visit(Visitor&, Weights&, const Dims&) {}

    /// Changes one query or key head [head_dim] in place, before the key is cached.
    template <class Weights, class Dims>
    GG_HD GG_INLINE static void transform(const Weights&, const Dims&, const HeadPlace&, float*) {}

    /// How many of the last keys a row sees, itself included, in a layer; 0 means all.
    template <class Dims>
    GG_HOST static int window(const Dims&, int /*layer*/) {
        return 0;
    }
};

/// q, k, v and the output projection have biases.
struct Bias : AttentionPolicy {
    static constexpr bool bias = true;
};

/// The file holds q, k and v as consecutive rows of attn_qkv.
struct FusedQkv : AttentionPolicy {
    static constexpr bool fused_qkv = true;
};

/// A row sees only the last `window` keys in the layers that slide (dims.slides(layer)).
struct SlidingWindow : AttentionPolicy {
    template <class Dims>
    GG_HOST static int window(const Dims& dims, int layer) {
        return dims.slides(layer) ? dims.window : 0;
    }
};

/// One learnt logit a query head joins the softmax's denominator. It is not scaled, never masked and has no
/// value. Tensor attn_sinks.weight [heads].
struct Sinks : AttentionPolicy {
    static constexpr bool sinks = true;

    template <class Store>
    struct Weights {
        typename Store::Vector sink;  ///< [heads]
    };

    template <class Visitor, class Weights, class Dims>
    GG_HOST static void visit(Visitor& visitor, Weights& weights, const Dims& dims) {
        visitor.vector("attn_sinks", "weight", weights.sink, dims.heads);
    }
};

}  // namespace gg
