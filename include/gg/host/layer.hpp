// Runs a layer on the host. The residual stream is x plus a delta not yet added: each norm adds the delta of
// the residual before it in the same pass.
#pragma once

#include "gg/host/attention.hpp"
#include "gg/host/mixture_of_experts.hpp"
#include "gg/host/mlp.hpp"
#include "gg/layer/layer.hpp"

namespace gg::host {

/// The residual stream: x + delta if `pending`, else x. Both [rows][hidden].
struct Stream {
    Rows x;
    Rows delta;
    bool pending = false;
};

/// y = norm(stream), the pending delta added to x in passing.
template <class Norm, class Weights>
void normalise(Step& step, const Weights& w, Stream& stream, Rows y) {
    for_each_row(step, y.count, [&](int row) {
        const float* delta = stream.pending ? stream.delta.row(row) : nullptr;
        GG_HOST_DISPATCH(step.set, normalise_row<Norm>(w, stream.x.row(row), delta, y.row(row),
                                                       step.dims.hidden, step.dims.norm_epsilon));
    });
    stream.pending = false;
}

template <class Norm, class... Branches>
struct Run<Residual<Norm, Branches...>> {
    using Weights = typename Residual<Norm, Branches...>::template Weights<HostStore>;

    static void forward(Step& step, const Weights& w, Stream& stream) {
        Workspace::Scope scope(step.workspace);
        const Rows y = step.workspace.rows(stream.x.count, step.dims.hidden);
        normalise<Norm>(step, w.norm, stream, y);
        run_branches<Branches...>(step, w.branches, y, stream);
    }

  private:
    template <class First, class... Rest, class List>
    static void run_branches(Step& step, const List& w, Rows y, Stream& stream) {
        if (!stream.pending) {
            Run<First>::forward(step, w.first, y, stream.delta);
            stream.pending = true;
        } else {
            const Rows more = step.workspace.rows(y.count, step.dims.hidden);
            Run<First>::forward(step, w.first, y, more);
            for_each_row(step, y.count, [&](int row) {
                GG_HOST_DISPATCH(
                    step.set, add_scaled_row(more.row(row), 1.0f, stream.delta.row(row), step.dims.hidden));
            });
        }
        if constexpr (sizeof...(Rest) > 0) run_branches<Rest...>(step, w.rest, y, stream);
    }
};

template <class... Residuals>
struct Run<Sequence<Residuals...>> {
    using Weights = typename Sequence<Residuals...>::template Weights<HostStore>;

    static void forward(Step& step, const Weights& w, Stream& stream) {
        run_all<Residuals...>(step, w.list, stream);
    }

  private:
    template <class First, class... Rest, class List>
    static void run_all(Step& step, const List& list, Stream& stream) {
        Run<First>::forward(step, list.first, stream);
        if constexpr (sizeof...(Rest) > 0) run_all<Rest...>(step, list.rest, stream);
    }
};

}  // namespace gg::host
