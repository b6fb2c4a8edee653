// A composition that the library does not have, made of its blocks and one policy of its own: RMS norms of
// queries and keys, and attention and MLP in parallel from one norm,
//   n = rms(x),  x += attention(n) + mlp(n).
// Host code and the run-time compiler both read it, so it includes headers of gg alone, and what runs on a
// device is marked GG_HD, what only the host calls GG_HOST.
#pragma once

#include "gg/block/attention.hpp"
#include "gg/block/embedding.hpp"
#include "gg/block/mlp.hpp"
#include "gg/block/rms_norm.hpp"
#include "gg/block/rope.hpp"
#include "gg/block/swiglu.hpp"
#include "gg/layer/layer.hpp"

namespace parallel {

/// The RMS norm of each query and key head. Composed before the rotary embedding, it is applied before it.
struct QkNorm : gg::AttentionPolicy {
    template <class Store>
    struct Weights {
        typename Store::Vector query_gain, key_gain;  ///< [head_dim]
    };

    template <class Visitor, class Weights, class Dims>
    GG_HOST static void visit(Visitor& visitor, Weights& w, const Dims& dims) {
        visitor.vector("attn_q_norm", "weight", w.query_gain, dims.head_dim);
        visitor.vector("attn_k_norm", "weight", w.key_gain, dims.head_dim);
    }

    template <class Weights, class Dims>
    GG_HD static void transform(const Weights& w, const Dims& dims, const gg::HeadPlace& head, float* x) {
        float squares = 0.0f;
        for (int i = 0; i < dims.head_dim; ++i) squares += x[i] * x[i];
        const float scale = gg::RmsNorm::scale(squares, dims.head_dim, dims.norm_epsilon);
        const auto& gain = head.is_key ? w.key_gain : w.query_gain;
        for (int i = 0; i < dims.head_dim; ++i) x[i] *= scale * gain[i];
    }
};

/// What the model consists of, for any policies of attention.
template <class... Policies>
struct Composition {
    using Embedding = gg::TokenEmbedding;
    using Layer = gg::Sequence<gg::Residual<gg::RmsNorm, gg::Attention<Policies...>, gg::Mlp<gg::Swiglu>>>;
    using FinalNorm = gg::RmsNorm;
};

using QkNormComposition = Composition<QkNorm, gg::HalfSplitRope>;

}  // namespace parallel
