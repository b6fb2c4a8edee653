// All tensors of a model of some family, and the walk that names them. A visitor is told each tensor's name,
// handle and shape; the backends' binders fill the handles.
//
// Visitor:  vector(stem, suffix, handle, n)                        float vector [n]
//           vector_part(stem, suffix, handle, total, first, n)     n of `total` elements
//           vectors(stem, suffix, handle, n, count)                [n, count]
//           matrix(stem, suffix, handle, columns, rows)            [columns, rows]
//           matrix_rows(stem, suffix, handle, columns, total, first, rows)   some of the rows
//           matrices(stem, suffix, handle, columns, rows, count)   [columns, rows, count]
//           begin_layer(i)   names from here on belong to layer i (prefix blk.i.);  end_layers()
//           has(stem, suffix) -> bool   whether the file has an optional tensor
#pragma once

#include <vector>

#include "gg/model/dims.hpp"

namespace gg {

/// The tensors of a whole model. A tied head is the embedding's matrix.
template <class Family, class Store>
struct ModelWeights {
    typename Family::Embedding::template Weights<Store> embedding;
    std::vector<typename Family::Layer::template Weights<Store>> layers;
    typename Family::FinalNorm::template Weights<Store> final_norm;
    typename Store::Matrix head;  ///< [hidden, vocabulary]
};

/// Names every tensor of the model to the visitor.
template <class Family, class Store, class Visitor>
void visit_weights(Visitor& visitor, ModelWeights<Family, Store>& weights, const Dims& dims) {
    Family::Embedding::visit(visitor, weights.embedding, dims);
    weights.layers.resize(static_cast<std::size_t>(dims.layers));
    for (int i = 0; i < dims.layers; ++i) {
        visitor.begin_layer(i);
        Family::Layer::visit(visitor, Family::layer_norms, weights.layers[static_cast<std::size_t>(i)], dims);
    }
    visitor.end_layers();
    Family::FinalNorm::visit(visitor, "output_norm", weights.final_norm, dims);
    constexpr bool needs_head = requires {
        Family::needs_head;
    };
    if (needs_head || visitor.has("output", "weight"))
        visitor.matrix("output", "weight", weights.head, dims.hidden, dims.vocabulary);
    else
        weights.head = weights.embedding.token;
}

}  // namespace gg
