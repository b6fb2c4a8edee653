// TokenEmbedding: row `token` of token_embd.weight [hidden, vocabulary], decoded to float32.
// PositionedEmbedding adds row `position` of position_embd.weight [hidden, context]: learned positions belong
// to the embedding, not to attention. Bytes moved per token: one or two rows.
#pragma once

#include "gg/core/device.hpp"

namespace gg {

struct TokenEmbedding {
    static constexpr bool has_positions = false;

    template <class Store>
    struct Weights {
        typename Store::Matrix token;  ///< [hidden, vocabulary]
    };

    /// Names the tensors.
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, Weights<Store>& w, const Dims& dims) {
        visitor.matrix("token_embd", "weight", w.token, dims.hidden, dims.vocabulary);
    }
};

struct PositionedEmbedding {
    static constexpr bool has_positions = true;

    template <class Store>
    struct Weights : TokenEmbedding::Weights<Store> {
        typename Store::Matrix position;  ///< [hidden, context]
    };

    /// Names the tensors.
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, Weights<Store>& w, const Dims& dims) {
        TokenEmbedding::visit(visitor, static_cast<TokenEmbedding::Weights<Store>&>(w), dims);
        visitor.matrix("position_embd", "weight", w.position, dims.hidden, dims.context);
    }
};

}  // namespace gg
