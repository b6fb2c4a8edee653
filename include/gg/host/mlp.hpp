// Runs the dense feed-forward block on the host.
#pragma once

#include "gg/block/mlp.hpp"
#include "gg/host/matmul.hpp"

namespace gg::host {

/// y = a(gate, up) for all rows; `out` may be `up`. `gate` is not read if the activation is not gated.
template <class Activation>
void activate(Step& step, Rows gate, Rows up, Rows out) {
    for_each_row(step, up.count, [&](int row) {
        const float* g = Activation::gated ? gate.row(row) : nullptr;
        GG_HOST_DISPATCH(step.set, activate_row<Activation>(g, up.row(row), out.row(row), up.width));
    });
}

template <class Activation, class BiasPolicy>
struct Run<Mlp<Activation, BiasPolicy>> {
    using Weights = typename Mlp<Activation, BiasPolicy>::template Weights<HostStore>;

    /// in [rows][hidden] to out [rows][hidden].
    static void forward(Step& step, const Weights& w, Rows in, Rows out) {
        Workspace::Scope scope(step.workspace);
        const Rows up = step.workspace.rows(in.count, step.dims.feed_forward);
        Rows gate;
        if constexpr (Activation::gated) {
            gate = step.workspace.rows(in.count, step.dims.feed_forward);
            multiply(step, Product{w.gate, w.gate_bias, in, gate}, Product{w.up, w.up_bias, in, up});
        } else {
            multiply(step, Product{w.up, w.up_bias, in, up});
        }
        activate<Activation>(step, gate, up, up);
        multiply(step, Product{w.down, w.down_bias, up, out});
    }
};

}  // namespace gg::host
