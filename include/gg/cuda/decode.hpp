// One step of decoding: up to 1 or 8 rows through all layers and the head by the fused stages, enqueued on a
// stream or captured into a graph. Nothing is allocated or synchronised while it is enqueued.
//
// A layer is five kernels: q, k and v; attention; output; up; down. The residual stream lies in two buffers
// that take turns, as partial sums: a stage never writes what it reads. A residual with two branches norms
// the same stream twice and adds one branch after the other.
#pragma once

#include <algorithm>
#include <vector>

#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/model_kernels.hpp"
#include "gg/cuda/places.hpp"
#include "gg/cuda/prefill_args.hpp"
#include "gg/cuda/weights.hpp"
#include "gg/cuda/workspace.hpp"

namespace gg::cuda {

/// What every step of a model needs, apart from its buffers.
template <class Family>
struct ModelParts {
    Dims dims;
    Target target;
    ModelFormats formats;
    const CudaWeights<Family>& weights;
    const ModelKernels& kernels;
    std::vector<LayerPlace> places;
    const double* inverse_frequencies;  ///< [head_dim / 2] on the device; null without a rotary policy
    double rotary_magnitude;
};

template <class Family>
class DecodeStep {
  public:
    using Layer = typename Family::Layer;

    /// Takes device memory for steps of decode_rows[variant] rows. `overflows` counts activations beyond
    /// FP16.
    DecodeStep(const ModelParts<Family>& parts, int variant, int* overflows, cudaStream_t stream)
        : parts_(parts), rows_(decode_rows[variant]), overflows_(overflows) {
        find_kernels(variant);
        allocate(stream);
    }

    int rows() const { return rows_; }
    /// The rows of the next step, [rows()], in device memory: written before the step by a copy.
    Row* row_list() const { return row_list_; }
    /// [rows()][vocabulary]
    float* logits() const { return logits_; }
    std::uint64_t bytes() const { return workspace_.bytes(); }

    /// Enqueues a step of the first `used_rows` rows of row_list(): appends their tokens to their sequences
    /// and leaves their logits. `early`: kernels may start before their predecessor ends.
    void enqueue(cudaStream_t stream, int used_rows, bool early) const {
        embed(stream, used_rows);
        ResidualStream x{x_[0], 1};
        int router_blocks = 0;
        for (std::size_t layer = 0; layer < kernels_.size(); ++layer) {
            std::size_t i = 0;
            ResidualStream normed = x;
            for_each_branch<Layer>([&](auto r, auto b) {
                constexpr int residual = decltype(r)::value, branch = decltype(b)::value;
                using Branch = BranchOf<Layer, residual, branch>;
                if (branch == 0) normed = x;
                const auto& weights = nth_weights<residual>(parts_.weights.vectors.layers[layer].list);
                const Place place{stream, layer, i, used_rows, early, x, normed, router_blocks};
                const StageKernel& last = *kernels_[layer][i].second;
                float* out = x.data == x_[0] ? x_[1] : x_[0];
                run(Branch{}, std::type_identity<typename PartOf<Layer, residual>::Norm>{}, place,
                    weights.norm, nth_weights<branch>(weights.branches), out,
                    std::bool_constant < next_is_routed<Layer, residual>() &&
                        branch + 1 == PartOf<Layer, residual>::branches > {});
                x = {out, last.launch.slots};
                router_blocks = last.launch.blocks;
                ++i;
            });
        }
        head_->enqueue(
            stream,
            HeadArgs<typename Family::FinalNorm>{x, parts_.weights.vectors.final_norm,
                                                 parts_.weights.head.tiles, logits_, used_rows, overflows_},
            early);
    }

  private:
    struct BranchKernels {
        const StageKernel *first, *mix, *second;
    };
    /// Where a branch is in the step.
    struct Place {
        cudaStream_t stream;
        std::size_t layer, branch;
        int used_rows;
        bool early;
        ResidualStream x, normed;  ///< what the branch adds to, and what it norms
        int router_blocks;         ///< of the stage before
    };

    void find_kernels(int variant) {
        const ModelKernels& kernels = parts_.kernels;
        for (const std::vector<BranchFormats>& formats : parts_.formats.layers) {
            std::vector<BranchKernels>& list = kernels_.emplace_back();
            for_each_branch<Layer>([&](auto r, auto b) {
                const BranchSpecs specs =
                    branch_specs<Layer, decltype(r)::value, decltype(b)::value>(formats[list.size()]);
                const BranchSpecs::Step& step = specs.decode[variant];
                list.push_back({&kernels[step.first], &kernels[step.mix], &kernels[step.second]});
            });
        }
        const EndSpecs ends = end_specs(parts_.formats);
        embed_ = &kernels[ends.embed];
        head_ = &kernels[ends.head[variant]];
    }

    void allocate(cudaStream_t stream) {
        const Dims& d = parts_.dims;
        const auto rows = static_cast<std::uint64_t>(rows_);
        std::uint64_t slots = 1, qkv_slots = 1, blocks = 1;
        for (const std::vector<BranchKernels>& layer : kernels_)
            for (const BranchKernels& branch : layer) {
                slots = std::max(slots, static_cast<std::uint64_t>(branch.second->launch.slots));
                qkv_slots = std::max(qkv_slots, static_cast<std::uint64_t>(branch.first->launch.slots));
                blocks = std::max(blocks, static_cast<std::uint64_t>(branch.second->launch.blocks));
            }
        const int splits = decode_splits(parts_.target.multiprocessors, d.kv_heads, rows_);
        const QkvColumns columns = qkv_columns(d.heads, d.kv_heads, d.head_dim);
        const int used = d.experts > 0 ? d.experts_used : 1,
                  most = std::min(rows_ * used, std::max(d.experts, 1));
        const int width = std::max(d.feed_forward, d.expert_feed_forward);
        const auto hidden = static_cast<std::uint64_t>(d.hidden);
        const std::uint64_t mixed =
            2 * rows * static_cast<std::uint64_t>(operand_stride(d.heads * d.head_dim));
        const std::uint64_t h = 2 * rows * static_cast<std::uint64_t>(used * operand_stride(width));
        workspace_.plan(x_[0], slots * rows * hidden);
        workspace_.plan(x_[1], slots * rows * hidden);
        workspace_.plan(qkv_, qkv_slots * rows * static_cast<std::uint64_t>(columns.width));
        workspace_.plan(mixed_, mixed);
        workspace_.plan(h_, h);
        workspace_.plan(router_sums_, blocks * rows * static_cast<std::uint64_t>(d.experts));
        workspace_.plan(choice_, static_cast<std::uint64_t>(choice_bytes(rows_, used, most)));
        workspace_.plan(attention_workspace_, decode_workspace_floats(d.heads, d.head_dim, rows_, splits));
        workspace_.plan(counters_, rows * static_cast<std::uint64_t>(d.kv_heads));
        workspace_.plan(cosines_, rows * static_cast<std::uint64_t>(d.head_dim / 2));
        workspace_.plan(sines_, rows * static_cast<std::uint64_t>(d.head_dim / 2));
        workspace_.plan(row_list_, rows);
        workspace_.plan(logits_, rows * static_cast<std::uint64_t>(d.vocabulary));
        workspace_.allocate("the workspace of decoding", stream);
        splits_ = splits;
    }

    void embed(cudaStream_t stream, int used_rows) const {
        const EmbedArgs args{
            parts_.weights.embedding.rows, parts_.weights.positions.rows, row_list_, nullptr, 0, x_[0],
            parts_.inverse_frequencies,    parts_.rotary_magnitude,       cosines_,  sines_};
        embed_->enqueue(dim3(static_cast<unsigned>(used_rows)), stream, args, false);
    }

    template <class... Policies, class Norm, class NormWeights, class Weights, bool routed_next>
    void run(const Attention<Policies...>&, std::type_identity<Norm>, const Place& at,
             const NormWeights& norm, const Weights& weights, float* out,
             std::bool_constant<routed_next>) const {
        const BranchTiles& tiles = parts_.weights.layers[at.layer][at.branch];
        const BranchKernels& kernels = kernels_[at.layer][at.branch];
        kernels.first->enqueue(
            at.stream,
            QkvArgs<Norm>{at.normed, norm, tiles.first.tiles, tiles.qkv_bias, qkv_, at.used_rows, overflows_},
            at.early);
        const DecodeAttentionArgs<Weights> mix{weights,      qkv_,      cosines_,
                                               sines_,       row_list_, parts_.places[at.layer],
                                               at.used_rows, mixed_,    attention_workspace_,
                                               counters_,    overflows_};
        kernels.mix->enqueue(
            dim3(static_cast<unsigned>(decode_blocks(parts_.dims.kv_heads, at.used_rows, splits_))),
            at.stream, mix, at.early);
        kernels.second->enqueue(at.stream,
                                OutputArgs{at.x, mixed_, tiles.second.tiles, weights.output_bias.data,
                                           next_router<routed_next>(at), out, router_sums_, at.used_rows},
                                at.early);
    }

    template <class Block, class Norm, class NormWeights, class Weights, bool routed_next>
    void run(const Block&, std::type_identity<Norm>, const Place& at, const NormWeights& norm,
             const Weights& weights, float* out, std::bool_constant<routed_next>) const {
        const BranchTiles& tiles = parts_.weights.layers[at.layer][at.branch];
        const BranchKernels& kernels = kernels_[at.layer][at.branch];
        UpArgs<Norm> up{at.normed,
                        norm,
                        tiles.first.tiles,
                        tiles.first.bytes_per_matrix,
                        weights.gate_bias.data,
                        weights.up_bias.data,
                        h_,
                        router_sums_,
                        at.router_blocks,
                        nullptr,
                        choice_,
                        at.used_rows,
                        overflows_};
        if constexpr (is_routed<Block>) up.router_bias = weights.router_bias.data;
        kernels.first->enqueue(at.stream, up, at.early);
        kernels.second->enqueue(
            at.stream,
            DownArgs{at.x, h_, tiles.second.tiles, tiles.second.bytes_per_matrix, weights.down_bias.data,
                     choice_, next_router<routed_next>(at), out, router_sums_, at.used_rows},
            at.early);
    }

    /// The router of the residual after this branch's.
    template <bool routed_next>
    const float* next_router(const Place& at) const {
        if constexpr (routed_next)
            return parts_.weights.layers[at.layer][at.branch + 1].router_columns;
        else
            return nullptr;
    }

    const ModelParts<Family>& parts_;
    int rows_, splits_ = 1;
    std::vector<std::vector<BranchKernels>> kernels_;
    const StageKernel *embed_ = nullptr, *head_ = nullptr;
    Workspace workspace_;
    float* x_[2] = {};
    float *qkv_ = nullptr, *router_sums_ = nullptr, *attention_workspace_ = nullptr, *cosines_ = nullptr,
          *sines_ = nullptr, *logits_ = nullptr;
    unsigned short *mixed_ = nullptr, *h_ = nullptr;
    unsigned char* choice_ = nullptr;
    int* counters_ = nullptr;
    Row* row_list_ = nullptr;
    int* overflows_;
};

}  // namespace gg::cuda
