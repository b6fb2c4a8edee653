// The layer type, composed of blocks:
//
//   Residual<Norm, Branches...>       x += sum over branches of branch(norm(x))
//   Sequence<Residuals...>            one after the other
//   Layer<Norm, Mixer, FeedForward>   the pre-norm transformer layer: x += mixer(norm(x)), x += ff(norm(x))
//
// Attention and MLP in parallel from one norm is Sequence<Residual<Norm, Attention<...>, Mlp<...>>>. A layer
// holds no dimension and no weight: Weights<Store> is the tuple of its blocks' tensors, visit names them.
#pragma once

#include "gg/core/device.hpp"

namespace gg {

/// The tensors of several blocks, in order.
template <class Store, class... Blocks>
struct WeightsList {};

template <class Store, class First, class... Rest>
struct WeightsList<Store, First, Rest...> {
    typename First::template Weights<Store> first;
    WeightsList<Store, Rest...> rest;
};

namespace detail {

template <class... Blocks>
struct VisitList {
    template <class Visitor, class List, class Dims>
    GG_HOST static void visit(Visitor&, List&, const Dims&) {}
    template <class Visitor, class List, class Dims>
    GG_HOST static void visit_named(Visitor&, const char* const*, List&, const Dims&) {}
};

template <class First, class... Rest>
struct VisitList<First, Rest...> {
    template <class Visitor, class List, class Dims>
    GG_HOST static void visit(Visitor& visitor, List& list, const Dims& dims) {
        First::visit(visitor, list.first, dims);
        VisitList<Rest...>::visit(visitor, list.rest, dims);
    }
    /// The same for blocks that are told their name in the file.
    template <class Visitor, class List, class Dims>
    GG_HOST static void visit_named(Visitor& visitor, const char* const* names, List& list,
                                    const Dims& dims) {
        First::visit(visitor, names[0], list.first, dims);
        VisitList<Rest...>::visit_named(visitor, names + 1, list.rest, dims);
    }
};

}  // namespace detail

/// x += sum over branches of branch(norm(x)).
template <class NormBlock, class... Branches>
struct Residual {
    static_assert(sizeof...(Branches) > 0, "a residual needs a branch");
    using Norm = NormBlock;
    static constexpr int branches = sizeof...(Branches);

    template <class Store>
    struct Weights {
        typename Norm::template Weights<Store> norm;
        WeightsList<Store, Branches...> branches;
    };

    /// Names the tensors; `name` is the norm's name in the file.
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, const char* name, Weights<Store>& w, const Dims& dims) {
        Norm::visit(visitor, name, w.norm, dims);
        detail::VisitList<Branches...>::visit(visitor, w.branches, dims);
    }
};

/// Residuals, one after the other.
template <class... Residuals>
struct Sequence {
    static constexpr int residuals = sizeof...(Residuals);

    template <class Store>
    struct Weights {
        WeightsList<Store, Residuals...> list;
    };

    /// Names the tensors; `norm_names` has one name a residual. (A family that is itself a template writes
    /// the array's bound: clang 14 does not deduce it there.)
    template <class Visitor, class Store, class Dims>
    GG_HOST static void visit(Visitor& visitor, const char* const (&norm_names)[residuals], Weights<Store>& w,
                              const Dims& dims) {
        detail::VisitList<Residuals...>::visit_named(visitor, norm_names, w.list, dims);
    }
};

namespace detail {

template <int i, class First, class... Rest>
struct NthBlock {
    using Type = typename NthBlock<i - 1, Rest...>::Type;
};
template <class First, class... Rest>
struct NthBlock<0, First, Rest...> {
    using Type = First;
};

template <int i, class Composed>
struct Part;
template <int i, class... Residuals>
struct Part<i, Sequence<Residuals...>> {
    using Type = typename NthBlock<i, Residuals...>::Type;
};
template <int i, class Norm, class... Branches>
struct Part<i, Residual<Norm, Branches...>> {
    using Type = typename NthBlock<i, Branches...>::Type;
};

}  // namespace detail

/// Residual i of a sequence, or branch i of a residual.
template <class Composed, int i>
using PartOf = typename detail::Part<i, Composed>::Type;

/// The i-th weights of a list.
template <int i, class List>
GG_HOST auto& nth_weights(List& list) {
    if constexpr (i == 0)
        return list.first;
    else
        return nth_weights<i - 1>(list.rest);
}

/// The pre-norm transformer layer.
template <class Norm, class Mixer, class FeedForward>
using Layer = Sequence<Residual<Norm, Mixer>, Residual<Norm, FeedForward>>;

}  // namespace gg
