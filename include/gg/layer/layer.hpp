// The layer type, composed of blocks:
//
//   Residual<Norm, Branches...>       x += sum over branches of branch(norm(x))
//   Sequence<Residuals...>            one after the other
//   Layer<Norm, Mixer, FeedForward>   the pre-norm transformer layer: x += mixer(norm(x)), x += ff(norm(x))
//
// Attention and MLP in parallel from one norm is Sequence<Residual<Norm, Attention<...>, Mlp<...>>>. A layer
// holds no dimension and no weight: Weights<Store> is the tuple of its blocks' tensors, visit names them.
#pragma once

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
    static void visit(Visitor&, List&, const Dims&) {}
    template <class Visitor, class List, class Dims>
    static void visit_named(Visitor&, const char* const*, List&, const Dims&) {}
};

template <class First, class... Rest>
struct VisitList<First, Rest...> {
    template <class Visitor, class List, class Dims>
    static void visit(Visitor& visitor, List& list, const Dims& dims) {
        First::visit(visitor, list.first, dims);
        VisitList<Rest...>::visit(visitor, list.rest, dims);
    }
    /// The same for blocks that are told their name in the file.
    template <class Visitor, class List, class Dims>
    static void visit_named(Visitor& visitor, const char* const* names, List& list, const Dims& dims) {
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

    template <class Store>
    struct Weights {
        typename Norm::template Weights<Store> norm;
        WeightsList<Store, Branches...> branches;
    };

    /// Names the tensors; `name` is the norm's name in the file.
    template <class Visitor, class Store, class Dims>
    static void visit(Visitor& visitor, const char* name, Weights<Store>& w, const Dims& dims) {
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
    static void visit(Visitor& visitor, const char* const (&norm_names)[residuals], Weights<Store>& w,
                      const Dims& dims) {
        detail::VisitList<Residuals...>::visit_named(visitor, norm_names, w.list, dims);
    }
};

/// The pre-norm transformer layer.
template <class Norm, class Mixer, class FeedForward>
using Layer = Sequence<Residual<Norm, Mixer>, Residual<Norm, FeedForward>>;

}  // namespace gg
