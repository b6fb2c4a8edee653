// Runs a mixture of experts on the host: rows are gathered by expert (in row order, so stably), each expert
// multiplies its rows in one piece, and each row adds up its experts' results in rank order.
#pragma once

#include "gg/block/mixture_of_experts.hpp"
#include "gg/host/mlp.hpp"

namespace gg::host {

template <class Activation, class BiasPolicy>
struct Run<MixtureOfExperts<Activation, BiasPolicy>> {
    using Weights = typename MixtureOfExperts<Activation, BiasPolicy>::template Weights<HostStore>;

    /// in [rows][hidden] to out [rows][hidden].
    static void forward(Step& step, const Weights& w, Rows in, Rows out) {
        const Dims& dims = step.dims;
        Workspace::Scope scope(step.workspace);
        const Routing routing = route(step, w, in);
        const int pairs = in.count * dims.experts_used;
        const Rows gathered = step.workspace.rows(pairs, dims.hidden);
        for_each_row(step, pairs, [&](int pair) {
            const float* from = in.row(pair / dims.experts_used);
            std::copy(from, from + dims.hidden, gathered.row(routing.place[pair]));
        });
        const Rows gate = step.workspace.rows(pairs, dims.expert_feed_forward);
        const Rows up = step.workspace.rows(pairs, dims.expert_feed_forward);
        const Rows down = step.workspace.rows(pairs, dims.hidden);
        std::vector<Product> products;
        for_each_expert(routing, dims, [&](int expert, int first, int count) {
            const Rows x = gathered.part(first, count);
            products.push_back(
                {w.gate[expert], row_of(w.gate_bias, expert, gate.width), x, gate.part(first, count)});
            products.push_back({w.up[expert], row_of(w.up_bias, expert, up.width), x, up.part(first, count)});
        });
        multiply(step, products);
        activate<Activation>(step, gate, up, up);
        products.clear();
        for_each_expert(routing, dims, [&](int expert, int first, int count) {
            products.push_back({w.down[expert], row_of(w.down_bias, expert, down.width),
                                up.part(first, count), down.part(first, count)});
        });
        multiply(step, products);
        for_each_row(step, in.count, [&](int row) {
            std::fill(out.row(row), out.row(row) + dims.hidden, 0.0f);
            for (int pair = row * dims.experts_used; pair < (row + 1) * dims.experts_used; ++pair)
                GG_HOST_DISPATCH(step.set, add_scaled_row(down.row(routing.place[pair]), routing.weight[pair],
                                                          out.row(row), dims.hidden));
        });
    }

  private:
    /// Pair p = row * experts_used + rank goes to gathered row place[p]; expert e has the gathered rows
    /// begin[e] to begin[e + 1].
    struct Routing {
        float* weight;
        int* place;
        int* begin;
    };

    static Routing route(Step& step, const Weights& w, Rows in) {
        const Dims& dims = step.dims;
        const int used = dims.experts_used;
        const auto pairs = static_cast<std::size_t>(in.count) * static_cast<std::size_t>(used);
        const Routing routing{step.workspace.floats(pairs), step.workspace.integers(pairs),
                              step.workspace.integers(static_cast<std::size_t>(dims.experts) + 1)};
        int* expert = step.workspace.integers(pairs);
        const Rows logits = step.workspace.rows(in.count, dims.experts);
        multiply(step, Product{w.router, w.router_bias, in, logits});
        for_each_row(step, in.count, [&](int row) {
            TopKRouter::select(logits.row(row), dims.experts, used, expert + row * used,
                               routing.weight + row * used);
        });
        std::fill(routing.begin, routing.begin + dims.experts + 1, 0);
        for (std::size_t p = 0; p < pairs; ++p) ++routing.begin[expert[p] + 1];
        for (int e = 0; e < dims.experts; ++e) routing.begin[e + 1] += routing.begin[e];
        std::vector<int> next(routing.begin, routing.begin + dims.experts);
        for (std::size_t p = 0; p < pairs; ++p)
            routing.place[p] = next[static_cast<std::size_t>(expert[p])]++;
        return routing;
    }

    template <class F>
    static void for_each_expert(const Routing& routing, const Dims& dims, F&& f) {
        for (int e = 0; e < dims.experts; ++e)
            if (const int count = routing.begin[e + 1] - routing.begin[e]) f(e, routing.begin[e], count);
    }

    static Vector row_of(const Vector& rows, int i, int width) {
        if (!rows.data) return {};
        return {rows.data + static_cast<std::size_t>(i) * static_cast<std::size_t>(width),
                static_cast<std::size_t>(width)};
    }
};

}  // namespace gg::host
