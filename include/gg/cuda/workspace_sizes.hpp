// The buffers of a decoding step and of reading a prompt, and what drawing takes: planned from dimensions,
// formats and the chip, before there are kernels or a device. A step plans its own buffers by these functions
// and then allocates them; a memory plan only asks for their bytes.
#pragma once

#include <algorithm>

#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/places.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/cuda/stage_args.hpp"
#include "gg/cuda/stage_shapes.hpp"
#include "gg/cuda/workspace_plan.hpp"

namespace gg::cuda {

/// Partial sums that the stages of a decoding step leave, at most over all layers: the launches of the
/// compiled kernels say the same of each.
struct PartialSums {
    int slots = 1;      ///< of the residual stream
    int qkv_slots = 1;  ///< of q, k and v
    int blocks = 1;     ///< that leave sums of a router
};

template <class Family>
PartialSums partial_sums(const Dims& dims, const ModelFormats& formats, const Target& target, int rows) {
    using Layer = typename Family::Layer;
    const Chip chip = chip_of(target);
    const auto tile_bytes = [](DType type) { return static_cast<int>(TileGeometry::tile_bytes(type)); };
    PartialSums most;
    for (const std::vector<BranchFormats>& layer : formats.layers) {
        std::size_t i = 0;
        for_each_branch<Layer>([&](auto r, auto b) {
            constexpr int residual = decltype(r)::value, branch = decltype(b)::value;
            using Branch = BranchOf<Layer, residual, branch>;
            constexpr bool routes_next =
                next_is_routed<Layer, residual>() && branch + 1 == PartOf<Layer, residual>::branches;
            const BranchFormats format = layer[i++];
            int width = dims.heads * dims.head_dim, matrices = 1;
            if constexpr (is_attention<Branch>) {
                const int stacked = qkv_columns(dims.heads, dims.kv_heads, dims.head_dim).width;
                const MatvecShape first = qkv_shape(rows, dims.hidden, stacked, tile_bytes(format.first),
                                                    TileGeometry::planes(format.first));
                most.qkv_slots = std::max(most.qkv_slots, plan_matvec(first, chip).slots);
            } else {
                width = is_routed<Branch> ? dims.expert_feed_forward : dims.feed_forward;
                if (is_routed<Branch>) matrices = most_experts(rows, dims.experts_used, dims.experts);
            }
            const MatvecPlan second = plan_matvec(
                residual_shape(rows, dims.hidden, width, matrices, tile_bytes(format.second),
                               TileGeometry::planes(format.second), chip, routes_next ? dims.experts : 0),
                chip);
            most.slots = std::max(most.slots, second.slots);
            most.blocks = std::max(most.blocks, second.blocks);
        });
    }
    return most;
}

/// Device memory of a decoding step; stage_args.hpp has the shapes.
struct DecodeBuffers {
    float* x[2] = {};  ///< the residual stream, in turns
    float* qkv = nullptr;
    unsigned short* mixed = nullptr;
    unsigned short* h = nullptr;
    float* router_sums = nullptr;
    unsigned char* choice = nullptr;
    float* attention = nullptr;  ///< decode_workspace_floats
    int* counters = nullptr;     ///< of attention
    float* cosines = nullptr;
    float* sines = nullptr;
    Row* row_list = nullptr;
};

/// Plans the buffers of steps of up to `row_count` rows on a chip of `multiprocessors`.
inline void plan_decode(WorkspacePlan& workspace, DecodeBuffers& out, const Dims& d, const PartialSums& sums,
                        int multiprocessors, int row_count) {
    const auto size = [](int n) { return static_cast<std::uint64_t>(n); };
    const std::uint64_t rows = size(row_count), stream = rows * size(d.hidden);
    const int splits = decode_splits(multiprocessors, d.kv_heads, row_count);
    const int used = d.experts > 0 ? d.experts_used : 1, most = most_experts(row_count, used, d.experts);
    const int width = std::max(d.feed_forward, d.expert_feed_forward);
    workspace.plan(out.x[0], size(sums.slots) * stream);
    workspace.plan(out.x[1], size(sums.slots) * stream);
    workspace.plan(out.qkv,
                   size(sums.qkv_slots) * rows * size(qkv_columns(d.heads, d.kv_heads, d.head_dim).width));
    workspace.plan(out.mixed, 2 * rows * size(operand_stride(d.heads * d.head_dim)));
    workspace.plan(out.h, 2 * rows * size(used * operand_stride(width)));
    workspace.plan(out.router_sums, size(sums.blocks) * rows * size(d.experts));
    workspace.plan(out.choice, size(choice_bytes(row_count, used, most)));
    workspace.plan(out.attention, decode_workspace_floats(d.heads, d.head_dim, row_count, splits));
    workspace.plan(out.counters, rows * size(d.kv_heads));
    workspace.plan(out.cosines, rows * size(d.head_dim / 2));
    workspace.plan(out.sines, rows * size(d.head_dim / 2));
    workspace.plan(out.row_list, rows);
}

/// Rows whose logits are computed together when a text is scored.
inline constexpr int cuda_scored_rows = 64;

/// The most branches of a residual: the stream is normed for each before any adds to it.
template <class Family>
int most_branches() {
    int most = 1;
    for_each_branch<typename Family::Layer>([&](auto, auto b) { most = std::max(most, b.value + 1); });
    return most;
}

/// What of a model's composition and formats sizes the buffers of reading a prompt.
struct PrefillNeeds {
    int branches = 1;  ///< of a residual, at most
    int planes = 1;    ///< of an operand, at most
};

template <class Family>
PrefillNeeds prefill_needs(const ModelFormats& formats) {
    PrefillNeeds needs{most_branches<Family>(), TileGeometry::planes(formats.head)};
    for (const std::vector<BranchFormats>& layer : formats.layers)
        for (const BranchFormats& format : layer)
            needs.planes = std::max(
                {needs.planes, TileGeometry::planes(format.first), TileGeometry::planes(format.second)});
    return needs;
}

/// Tokens of a prompt that may be computed together, the most first. A memory plan chooses.
inline constexpr int prefill_steps[] = {8192, 4096, 2048, 1024, 512, 256};

/// The rows of the largest step for which fits(rows), at most `context` and `most`; those of the smallest
/// step if none fits.
template <class Fits>
int choose_step(int context, int most, Fits&& fits) {
    int rows = 0;
    for (const int step : prefill_steps) {
        rows = std::min({step, context, most});
        if (fits(rows)) break;
    }
    return rows;
}

/// Device memory of reading a prompt; prefill.hpp and the stages it launches have the shapes.
struct PrefillBuffers {
    int* tokens = nullptr;
    float* x = nullptr;
    unsigned short* normed[2] = {};
    float* qkv = nullptr;
    unsigned short *queries = nullptr, *mixed = nullptr, *h = nullptr;
    float *cosines = nullptr, *sines = nullptr;
    int* expert = nullptr;
    float* weight = nullptr;
    int *offsets = nullptr, *sorted_rows = nullptr, *place = nullptr;
    float* y = nullptr;
    float* logits = nullptr;  ///< [cuda_scored_rows][vocabulary]
};

/// Plans the buffers of steps of up to `row_count` rows. Those of attention share memory with those of a
/// feed-forward block: none of either is read after its block.
inline void plan_prefill(WorkspacePlan& workspace, PrefillBuffers& out, const Dims& d,
                         const PrefillNeeds& needs, int row_count) {
    const auto size = [](int n) { return static_cast<std::uint64_t>(n); };
    const std::uint64_t rows = size(row_count), pairs = rows * size(std::max(d.experts_used, 1)),
                        planes = size(needs.planes);
    const int width = std::max(d.feed_forward, d.expert_feed_forward);
    workspace.plan(out.tokens, rows);
    workspace.plan(out.x, rows * size(d.hidden));
    for (int k = 0; k < needs.branches; ++k)
        workspace.plan(out.normed[k], planes * rows * size(operand_stride(d.hidden)));
    workspace.plan(out.cosines, rows * size(d.head_dim / 2));
    workspace.plan(out.sines, rows * size(d.head_dim / 2));
    if (d.experts > 0) {
        workspace.plan(out.expert, pairs);
        workspace.plan(out.weight, pairs);
        workspace.plan(out.offsets, size(d.experts) + 1);
        workspace.plan(out.sorted_rows, pairs);
        workspace.plan(out.place, pairs);
    }
    workspace.plan(out.logits, std::uint64_t{cuda_scored_rows} * size(d.vocabulary));
    const std::uint64_t shared = workspace.next();
    workspace.plan(out.qkv, rows * size(qkv_columns(d.heads, d.kv_heads, d.head_dim).width));
    workspace.plan(out.queries, rows * size(d.heads) * size(head_stride(d.head_dim)));
    workspace.plan(out.mixed, planes * rows * size(operand_stride(d.heads * d.head_dim)));
    workspace.share_from(shared);
    workspace.plan(out.h, planes * pairs * size(operand_stride(width)));
    if (d.experts > 0) workspace.plan(out.y, pairs * size(d.hidden));
}

/// Bytes of the buffers of a decoding step, and of reading a prompt.
inline std::uint64_t decode_bytes(const Dims& dims, const PartialSums& sums, int multiprocessors, int rows) {
    WorkspacePlan workspace;
    DecodeBuffers buffers;
    plan_decode(workspace, buffers, dims, sums, multiprocessors, rows);
    return workspace.bytes();
}
inline std::uint64_t prefill_bytes(const Dims& dims, const PrefillNeeds& needs, int rows) {
    WorkspacePlan workspace;
    PrefillBuffers buffers;
    plan_prefill(workspace, buffers, dims, needs, rows);
    return workspace.bytes();
}

/// Bytes that drawing takes for all sessions together: the workspace of as many rows as are drawn at once.
inline std::uint64_t drawing_bytes(const Dims& dims) {
    return sampler_workspace_bytes(dims.vocabulary, decode_rows[decode_variants - 1]);
}

/// What the driver rounds large allocations up to, and takes at once for small ones.
inline constexpr std::uint64_t device_granularity = std::uint64_t{2} << 20;

/// Bytes that a session keeps beside its cache, at most: its logits, a bit for each id that is never drawn, a
/// sampler's state, the recent tokens, as a ring and on their way into it; and what cache and all these are
/// rounded up to.
inline std::uint64_t session_state_bytes(const Dims& dims, int context) {
    const auto vocabulary = static_cast<std::uint64_t>(dims.vocabulary);
    return 2 * device_granularity + padded_piece(4 * vocabulary) +
           padded_piece(4 * ((vocabulary + 31) / 32)) + padded_piece(sizeof(SamplerState)) +
           2 * padded_piece(4 * static_cast<std::uint64_t>(context));
}

}  // namespace gg::cuda
