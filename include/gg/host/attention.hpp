// Runs attention on the host: products, policies on every query and key head, the cache, then each row and
// group of heads by itself (kernels/attend.inl).
#pragma once

#include "gg/block/attention.hpp"
#include "gg/host/matmul.hpp"

namespace gg::host {

template <class... Policies>
struct Run<Attention<Policies...>> {
    using Block = Attention<Policies...>;
    using Weights = typename Block::template Weights<HostStore>;

    /// in [rows][hidden] to out [rows][hidden]; appends the rows to the cache.
    static void forward(Step& step, const Weights& w, Rows in, Rows out) {
        const Dims& dims = step.dims;
        Workspace::Scope scope(step.workspace);
        const Rows q = step.workspace.rows(in.count, dims.heads * dims.head_dim);
        const Rows k = step.workspace.rows(in.count, dims.kv_heads * dims.head_dim);
        const Rows v = step.workspace.rows(in.count, dims.kv_heads * dims.head_dim);
        multiply(step, Product{w.q, w.q_bias, in, q}, Product{w.k, w.k_bias, in, k},
                 Product{w.v, w.v_bias, in, v});
        Block::with_rotary(
            [&](auto policy) { step.rotary.fill<decltype(policy)>(dims, step.position, in.count); });
        for_each_row(step, in.count, [&](int row) {
            transform_row(step, w, row, q.row(row), k.row(row));
            step.cache->append(step.position + row, k.row(row), v.row(row));
        });
        const Rows mixed = step.workspace.rows(in.count, dims.heads * dims.head_dim);
        mix(step, w, q, mixed);
        multiply(step, Product{w.output, w.output_bias, mixed, out});
    }

  private:
    static void transform_row(Step& step, const Weights& w, int row, float* q, float* k) {
        const Dims& dims = step.dims;
        const float* cosines = Block::has_rotary ? step.rotary.cosines(row) : nullptr;
        const float* sines = Block::has_rotary ? step.rotary.sines(row) : nullptr;
        for (int h = 0; h < dims.heads; ++h)
            Block::template transform<HostStore>(w, dims, HeadPlace{h, false, cosines, sines},
                                                 q + h * dims.head_dim);
        for (int h = 0; h < dims.kv_heads; ++h)
            Block::template transform<HostStore>(w, dims, HeadPlace{h, true, cosines, sines},
                                                 k + h * dims.head_dim);
    }

    /// The weighted values of every row and head.
    static void mix(Step& step, const Weights& w, Rows q, Rows mixed) {
        const Dims& dims = step.dims;
        const int group = dims.heads / dims.kv_heads;
        const int parts = (group + attention_heads - 1) / attention_heads;
        const int window = Block::window(dims, step.layer);
        if (window == 0 && step.position + q.count > step.cache->capacity())
            throw Error(ErrorCode::internal, "layer " + std::to_string(step.layer) +
                                                 " has a sliding cache but attention without a window");
        Workspace::Scope scope(step.workspace);
        const std::size_t score_stride =
            host::score_stride(dims, step.layer, static_cast<int>(step.cache->capacity()));
        float* scores = step.workspace.floats(score_stride * attention_heads *
                                              static_cast<std::size_t>(step.pool.size()));
        const float scale = 1.0f / std::sqrt(static_cast<float>(dims.head_dim));
        step.pool.run(static_cast<long>(q.count) * dims.kv_heads * parts, [&](long task, int thread) {
            const int part = static_cast<int>(task % parts);
            const int kv_head = static_cast<int>(task / parts % dims.kv_heads);
            const int row = static_cast<int>(task / parts / dims.kv_heads);
            const int head = kv_head * group + part * attention_heads;
            const long last = step.position + row;
            const Attend attend{
                .query = q.row(row) + head * dims.head_dim,
                .keys = step.cache->keys(kv_head),
                .values = step.cache->values(kv_head),
                .sink = sink_of(w, head),
                .scores = scores + score_stride * attention_heads * static_cast<std::size_t>(thread),
                .out = mixed.row(row) + head * dims.head_dim,
                .score_stride = score_stride,
                .first = window ? std::max(0L, last - window + 1) : 0,
                .last = last,
                .capacity = step.cache->capacity(),
                .head_dim = dims.head_dim,
                .value_stride = step.cache->value_stride(),
                .scale = scale,
            };
            attend_heads(step.set, attend, std::min(attention_heads, group - part * attention_heads));
        });
    }

    static const float* sink_of(const Weights& w, int head) {
        if constexpr (Block::has_sinks)
            return w.sink.data + head;
        else
            return nullptr;
    }

    static void attend_heads(InstructionSet set, const Attend& a, int heads) {
        switch (heads) {
            case 1:
                GG_HOST_DISPATCH(set, attend<1>(a));
                break;
            case 2:
                GG_HOST_DISPATCH(set, attend<2>(a));
                break;
            case 3:
                GG_HOST_DISPATCH(set, attend<3>(a));
                break;
            default:
                GG_HOST_DISPATCH(set, attend<4>(a));
                break;
        }
    }
};

}  // namespace gg::host
