// One step of decoding: up to 1 or 8 rows through all layers and the head by the fused stages, enqueued on a
// stream or captured into a graph. Nothing is allocated or synchronised while it is enqueued.
//
// A layer is five kernels: q, k and v; attention; output; up; down. The residual stream lies in two buffers
// that take turns, as partial sums: a stage never writes what it reads. A residual with two branches norms
// the same stream twice and adds one branch after the other.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/model_kernels.hpp"
#include "gg/cuda/places.hpp"
#include "gg/cuda/prefill_args.hpp"
#include "gg/cuda/stage_log.hpp"
#include "gg/cuda/weights.hpp"
#include "gg/cuda/workspace.hpp"
#include "gg/cuda/workspace_sizes.hpp"

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
        : parts_(parts),
          rows_(decode_rows[variant]),
          least_blocks_(rows_ == 1 ? parts.target.multiprocessors : 0),
          overflows_(overflows) {
        find_kernels(variant);
        allocate(stream);
    }

    int rows() const { return rows_; }
    /// The rows of the next step, [rows()], in device memory: written by a copy, or by a draw.
    Row* row_list() const { return buffers_.row_list; }
    std::uint64_t bytes() const { return workspace_.bytes(); }

    /// Enqueues a step of the first `used_rows` rows of row_list(): appends their tokens to their sequences
    /// and leaves the logits that they want. `early`: kernels may start before their predecessor ends.
    void enqueue(cudaStream_t stream, int used_rows, bool early) const {
        embed(stream, used_rows);
        ResidualStream x{buffers_.x[0], 1};
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
                float* out = x.data == buffers_.x[0] ? buffers_.x[1] : buffers_.x[0];
                run(Branch{}, std::type_identity<typename PartOf<Layer, residual>::Norm>{}, place,
                    weights.norm, nth_weights<branch>(weights.branches), out,
                    std::bool_constant < next_is_routed<Layer, residual>() &&
                        branch + 1 == PartOf<Layer, residual>::branches > {});
                x = {out, last.launch.slots};
                router_blocks = last.launch.blocks;
                ++i;
            });
        }
        head_->enqueue(stream,
                       HeadArgs<typename Family::FinalNorm>{x, parts_.weights.vectors.final_norm,
                                                            parts_.weights.head.tiles, buffers_.row_list,
                                                            used_rows, overflows_},
                       early, least_blocks_);
    }

    /// The kernels of a step in their order, with the bytes of weights that they read for one row.
    std::vector<ChainKernel> chain() const {
        std::vector<ChainKernel> list = {{embed_->kernel.name(), 0}};
        for (std::size_t layer = 0; layer < kernels_.size(); ++layer) {
            std::size_t i = 0;
            for_each_branch<Layer>([&](auto r, auto b) {
                using Branch = BranchOf<Layer, decltype(r)::value, decltype(b)::value>;
                const BranchKernels& kernels = kernels_[layer][i];
                const BranchTiles& tiles = parts_.weights.layers[layer][i++];
                const int matrices = is_routed<Branch> ? parts_.dims.experts_used : 1;
                const auto bytes = [&](const TileMatrix& m) {
                    return static_cast<double>(m.bytes_per_matrix) * matrices;
                };
                list.push_back({kernels.first->kernel.name(), bytes(tiles.first)});
                if constexpr (is_attention<Branch>) list.push_back({kernels.mix->kernel.name(), 0});
                list.push_back({kernels.second->kernel.name(), bytes(tiles.second)});
            });
        }
        list.push_back({head_->kernel.name(), static_cast<double>(parts_.weights.head.bytes_per_matrix)});
        return list;
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
                const BranchSpecs specs = branch_specs<Layer, decltype(r)::value, decltype(b)::value>(
                    formats[list.size()], parts_.target.architecture);
                const BranchSpecs::Step& step = specs.decode[variant];
                list.push_back({&kernels[step.first], &kernels[step.mix], &kernels[step.second]});
            });
        }
        const EndSpecs ends = end_specs(parts_.formats, parts_.target.architecture);
        embed_ = &kernels[ends.embed];
        head_ = &kernels[ends.head[variant]];
    }

    void allocate(cudaStream_t stream) {
        const int multiprocessors = parts_.target.multiprocessors;
        const PartialSums sums = partial_sums<Family>(parts_.dims, parts_.formats, parts_.target, rows_);
        for (const std::vector<BranchKernels>& layer : kernels_)
            for (const BranchKernels& branch : layer)
                if (branch.first->launch.slots > std::max(sums.qkv_slots, 1) ||
                    branch.second->launch.slots > sums.slots || branch.second->launch.blocks > sums.blocks)
                    throw Error(ErrorCode::internal, "kernels leave more partial sums than planned");
        plan_decode(workspace_, buffers_, parts_.dims, sums, multiprocessors, rows_);
        workspace_.allocate("the workspace of decoding", stream);
        splits_ = decode_splits(multiprocessors, parts_.dims.kv_heads, rows_);
    }

    void embed(cudaStream_t stream, int used_rows) const {
        const EmbedArgs args{parts_.weights.embedding.rows,
                             parts_.weights.positions.rows,
                             buffers_.row_list,
                             nullptr,
                             0,
                             buffers_.x[0],
                             parts_.inverse_frequencies,
                             parts_.rotary_magnitude,
                             buffers_.cosines,
                             buffers_.sines};
        embed_->enqueue(dim3(static_cast<unsigned>(used_rows)), stream, args, false);
    }

    template <class... Policies, class Norm, class NormWeights, class Weights, bool routed_next>
    void run(const Attention<Policies...>&, std::type_identity<Norm>, const Place& at,
             const NormWeights& norm, const Weights& weights, float* out,
             std::bool_constant<routed_next>) const {
        const BranchTiles& tiles = parts_.weights.layers[at.layer][at.branch];
        const BranchKernels& kernels = kernels_[at.layer][at.branch];
        kernels.first->enqueue(at.stream,
                               QkvArgs<Norm>{at.normed, norm, tiles.first.tiles, tiles.qkv_bias, buffers_.qkv,
                                             at.used_rows, overflows_},
                               at.early, least_blocks_);
        const DecodeAttentionArgs<Weights> mix{weights,           buffers_.qkv,      buffers_.cosines,
                                               buffers_.sines,    buffers_.row_list, parts_.places[at.layer],
                                               at.used_rows,      buffers_.mixed,    buffers_.attention,
                                               buffers_.counters, overflows_};
        const int blocks =
            std::max(decode_blocks(parts_.dims.kv_heads, at.used_rows, splits_), least_blocks_);
        kernels.mix->enqueue(dim3(static_cast<unsigned>(blocks)), at.stream, mix, at.early);
        kernels.second->enqueue(
            at.stream,
            OutputArgs{at.x, buffers_.mixed, tiles.second.tiles, weights.output_bias.data,
                       next_router<routed_next>(at), out, buffers_.router_sums, at.used_rows},
            at.early, least_blocks_);
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
                        buffers_.h,
                        buffers_.router_sums,
                        at.router_blocks,
                        nullptr,
                        buffers_.choice,
                        at.used_rows,
                        overflows_};
        if constexpr (is_routed<Block>) up.router_bias = weights.router_bias.data;
        kernels.first->enqueue(at.stream, up, at.early, least_blocks_);
        kernels.second->enqueue(
            at.stream,
            DownArgs{at.x, buffers_.h, tiles.second.tiles, tiles.second.bytes_per_matrix,
                     weights.down_bias.data, buffers_.choice, next_router<routed_next>(at), out,
                     buffers_.router_sums, at.used_rows},
            at.early, least_blocks_);
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
    /// Blocks of every kernel of a step of one row: as many as multiprocessors, be some idle. The next
    /// stage's blocks then find one place on each, and all of them have equally much to do.
    int least_blocks_;
    std::vector<std::vector<BranchKernels>> kernels_;
    const StageKernel *embed_ = nullptr, *head_ = nullptr;
    Workspace workspace_;
    DecodeBuffers buffers_;
    int* overflows_;
};

}  // namespace gg::cuda
