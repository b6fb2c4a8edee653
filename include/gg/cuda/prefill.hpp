// Many rows of one sequence through all layers: products by product_variant.cuh, attention tile by tile,
// experts sorted. Nothing is allocated or synchronised while a step is enqueued. A layer with a window
// appends and attends in parts of at most cuda_prefill_chunk rows, as many as its ring holds beside the
// window.
//
// The residual stream is x [rows][hidden] in float32; output and down products add to it. A residual with two
// branches norms x for both before either adds.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/decode.hpp"
#include "gg/cuda/prefill_args.hpp"
#include "gg/cuda/prefill_plan.hpp"

namespace gg::cuda {

/// The rows of a step: consecutive tokens of one sequence.
struct PrefillRows {
    const int* tokens;  ///< on the device
    int count;
    int start;  ///< position of the first
    unsigned char* cache;
    int capacity;
};

template <class Family>
class PrefillStep {
  public:
    using Layer = typename Family::Layer;

    /// Takes device memory for steps of up to `rows` rows.
    PrefillStep(const ModelParts<Family>& parts, int rows, int* overflows, cudaStream_t stream)
        : parts_(parts), most_(rows), overflows_(overflows) {
        find_kernels();
        plan_prefill(workspace_, buffers_, parts_.dims, prefill_needs<Family>(parts_.formats), most_);
        workspace_.allocate("the workspace of reading a prompt", stream);
    }

    int rows() const { return most_; }
    std::uint64_t bytes() const { return workspace_.bytes(); }
    /// Room for the tokens of a step, on the device.
    int* tokens() const { return buffers_.tokens; }
    /// [cuda_scored_rows][vocabulary]
    float* logits() const { return buffers_.logits; }

    /// Enqueues all layers over the rows: their keys and values go to the cache, their stream stays here.
    void enqueue(cudaStream_t stream, const PrefillRows& rows) const {
        embed(stream, rows);
        for (std::size_t layer = 0; layer < kernels_.size(); ++layer) {
            std::size_t i = 0;
            for_each_branch<Layer>([&](auto r, auto b) {
                constexpr int residual = decltype(r)::value, branch = decltype(b)::value;
                using Norm = typename PartOf<Layer, residual>::Norm;
                const auto& weights = nth_weights<residual>(parts_.weights.vectors.layers[layer].list);
                if constexpr (branch == 0)
                    for (std::size_t k = 0; k < std::size_t{PartOf<Layer, residual>::branches}; ++k)
                        norm<Norm>(stream, *kernels_[layer][i + k].norm, weights.norm, buffers_.x, rows.count,
                                   buffers_.normed[k]);
                run(BranchOf<Layer, residual, branch>{}, std::type_identity<Norm>{},
                    Place{stream, layer, i, rows, buffers_.normed[branch]}, weights.norm,
                    nth_weights<branch>(weights.branches));
                ++i;
            });
        }
    }

    /// Enqueues the logits of rows [first, first + count) of the last step, to [count][vocabulary].
    void enqueue_head(cudaStream_t stream, int first, int count, float* logits) const {
        const Dims& d = parts_.dims;
        norm<typename Family::FinalNorm>(stream, *head_norm_, parts_.weights.vectors.final_norm,
                                         buffers_.x + std::size_t(first) * std::size_t(d.hidden), count,
                                         buffers_.normed[0]);
        ProductArgs args = product_args(parts_.weights.head, buffers_.normed[0], d.hidden, count);
        args.y = logits;
        multiply(stream, head_, parts_.formats.head, args, row_tiles(d.vocabulary));
    }

  private:
    struct BranchKernels {
        const StageKernel* norm;
        const StageKernel *first[product_variants], *second[product_variants];
        const StageKernel *append, *attention, *router, *sort, *combine;
    };
    struct Place {
        cudaStream_t stream;
        std::size_t layer, branch;
        const PrefillRows& rows;
        const unsigned short* normed;
    };

    static dim3 grid(const LaunchShape& shape) {
        return dim3(static_cast<unsigned>(shape.blocks_x), static_cast<unsigned>(shape.blocks_y));
    }

    void find_kernels() {
        const ModelKernels& kernels = parts_.kernels;
        for (const std::vector<BranchFormats>& formats : parts_.formats.layers) {
            std::vector<BranchKernels>& list = kernels_.emplace_back();
            for_each_branch<Layer>([&](auto r, auto b) {
                const BranchSpecs specs = branch_specs<Layer, decltype(r)::value, decltype(b)::value>(
                    formats[list.size()], parts_.target.architecture);
                BranchKernels out{&kernels[specs.norm],
                                  {},
                                  {},
                                  &kernels[specs.append],
                                  &kernels[specs.attention],
                                  &kernels[specs.router],
                                  &kernels[specs.sort],
                                  &kernels[specs.combine]};
                for (int v = 0; v < product_variants; ++v) {
                    out.first[v] = &kernels[specs.first[v]];
                    out.second[v] = &kernels[specs.second[v]];
                }
                list.push_back(out);
            });
        }
        const EndSpecs ends = end_specs(parts_.formats, parts_.target.architecture);
        embed_ = &kernels[ends.embed];
        head_norm_ = &kernels[ends.norm];
        for (int v = 0; v < product_variants; ++v) head_[v] = &kernels[ends.product[v]];
    }

    void embed(cudaStream_t stream, const PrefillRows& rows) const {
        const EmbedArgs args{parts_.weights.embedding.rows,
                             parts_.weights.positions.rows,
                             nullptr,
                             rows.tokens,
                             rows.start,
                             buffers_.x,
                             parts_.inverse_frequencies,
                             parts_.rotary_magnitude,
                             buffers_.cosines,
                             buffers_.sines};
        embed_->enqueue(grid(embed_launch(rows.count)), stream, args, false);
    }

    template <class Norm, class Weights>
    void norm(cudaStream_t stream, const StageKernel& kernel, const Weights& weights, const float* x,
              int rows, unsigned short* out) const {
        const NormArgs<Norm> args{
            weights,
            x,
            rows,
            out,
            static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(operand_stride(parts_.dims.hidden)),
            overflows_};
        kernel.enqueue(grid(norm_rows_launch(rows)), stream, args, false);
    }

    /// A product of `rows` rows of an operand buffer of exactly as many.
    ProductArgs product_args(const TileMatrix& matrix, const unsigned short* x, int width, int rows) const {
        ProductArgs args{};
        args.tiles = matrix.tiles;
        args.expert_bytes = matrix.bytes_per_matrix;
        args.row_units = matrix.row_units;
        args.x = x;
        args.x_plane = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(operand_stride(width));
        args.rows = rows;
        args.overflows = overflows_;
        return args;
    }

    void multiply(cudaStream_t stream, const StageKernel* const (&kernels)[product_variants], DType format,
                  const ProductArgs& args, int row_tiles) const {
        const int v = choose_product(row_tiles, args.rows, args.experts, parts_.target.multiprocessors,
                                     has_warpgroup_products(parts_.target.architecture, format));
        const LaunchShape shape =
            variant_launch(v, static_cast<int>(TileGeometry::tile_bytes(format)),
                           TileGeometry::planes(format), row_tiles, args.rows, args.experts);
        kernels[v]->enqueue(grid(shape), stream, args, false);
    }

    template <class... Policies, class Norm, class NormWeights, class Weights>
    void run(const Attention<Policies...>&, std::type_identity<Norm>, const Place& at, const NormWeights&,
             const Weights& weights) const {
        const Dims& d = parts_.dims;
        const PrefillRows& rows = at.rows;
        const BranchKernels& kernels = kernels_[at.layer][at.branch];
        const BranchTiles& tiles = parts_.weights.layers[at.layer][at.branch];
        const BranchFormats formats = parts_.formats.layers[at.layer][at.branch];
        ProductArgs first = product_args(tiles.first, at.normed, d.hidden, rows.count);
        first.bias = tiles.qkv_bias;
        first.y = buffers_.qkv;
        multiply(at.stream, kernels.first, formats.first, first,
                 row_tiles(qkv_columns(d.heads, d.kv_heads, d.head_dim).width));
        const int most = parts_.places[at.layer].window > 0 ? cuda_prefill_chunk : rows.count;
        // The planes of an operand are as far apart as attention has rows: each part is multiplied alone.
        const bool apart = TileGeometry::planes(formats.second) > 1;
        for (int begin = 0; begin < rows.count; begin += most) {
            const int count = std::min(most, rows.count - begin);
            attend(at, weights, begin, count);
            if (apart) add_output(at, weights, begin, count);
        }
        if (!apart) add_output(at, weights, 0, rows.count);
    }

    /// Elements in front of row `begin` of a buffer of rows of `width`.
    static std::size_t skip(int begin, int width) {
        return static_cast<std::size_t>(begin) * static_cast<std::size_t>(width);
    }

    /// Rows [begin, begin + count) of the step: q, k, v to the cache and the queries, and from there to
    /// `mixed`.
    template <class Weights>
    void attend(const Place& at, const Weights& weights, int begin, int count) const {
        const Dims& d = parts_.dims;
        const PrefillRows& rows = at.rows;
        const BranchKernels& kernels = kernels_[at.layer][at.branch];
        const LayerPlace& place = parts_.places[at.layer];
        const float* qkv = buffers_.qkv + skip(begin, qkv_columns(d.heads, d.kv_heads, d.head_dim).width);
        const std::size_t angles = skip(begin, d.head_dim / 2);
        unsigned short* const queries = buffers_.queries + skip(begin, d.heads * head_stride(d.head_dim));
        unsigned short* const mixed = buffers_.mixed + skip(begin, operand_stride(d.heads * d.head_dim));
        const int start = rows.start + begin;
        const AppendKeysArgs<Weights> append{weights,
                                             qkv,
                                             buffers_.cosines + angles,
                                             buffers_.sines + angles,
                                             queries,
                                             rows.cache,
                                             rows.capacity,
                                             place,
                                             start,
                                             count,
                                             overflows_};
        kernels.append->enqueue(dim3(static_cast<unsigned>(append_blocks(d.heads, d.kv_heads, count))),
                                at.stream, append, false);
        const PrefillAttentionArgs<Weights> attention{weights, queries, rows.cache, rows.capacity, place,
                                                      start,   count,   mixed,      overflows_};
        const bool warpgroups =
            has_warpgroup_products(parts_.target.architecture) && warpgroup_prefill_supports(d.head_dim);
        const int blocks = warpgroups ? warpgroup_prefill_blocks(d.heads, d.kv_heads, d.head_dim, count)
                                      : prefill_blocks(d.heads, d.head_dim, count);
        kernels.attention->enqueue(dim3(static_cast<unsigned>(blocks)), at.stream, attention, false);
    }

    /// Adds the output product of those rows to the stream.
    template <class Weights>
    void add_output(const Place& at, const Weights& weights, int begin, int count) const {
        const Dims& d = parts_.dims;
        const int width = d.heads * d.head_dim;
        ProductArgs args = product_args(parts_.weights.layers[at.layer][at.branch].second,
                                        buffers_.mixed + skip(begin, operand_stride(width)), width, count);
        args.bias = weights.output_bias.data;
        args.y = buffers_.x + skip(begin, d.hidden);
        multiply(at.stream, kernels_[at.layer][at.branch].second,
                 parts_.formats.layers[at.layer][at.branch].second, args, row_tiles(d.hidden));
    }

    /// Row tiles that a product with an activation covers: those of the padded output.
    template <class Activation>
    static int covered_tiles(int width) {
        return operand_stride(width) / (Activation::gated ? 8 : 16);
    }

    template <class Activation, class BiasPolicy, class Norm, class NormWeights, class Weights>
    void run(const Mlp<Activation, BiasPolicy>&, std::type_identity<Norm>, const Place& at,
             const NormWeights&, const Weights& weights) const {
        const Dims& d = parts_.dims;
        const int rows = at.rows.count;
        const BranchTiles& tiles = parts_.weights.layers[at.layer][at.branch];
        ProductArgs up = product_args(tiles.first, at.normed, d.hidden, rows);
        up.bias = Activation::gated ? weights.gate_bias.data : weights.up_bias.data;
        up.up_bias = weights.up_bias.data;
        up.operand = buffers_.h;
        up.operand_plane =
            static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(operand_stride(d.feed_forward));
        multiply(at.stream, kernels_[at.layer][at.branch].first,
                 parts_.formats.layers[at.layer][at.branch].first, up,
                 covered_tiles<Activation>(d.feed_forward));
        ProductArgs down = product_args(tiles.second, buffers_.h, d.feed_forward, rows);
        down.bias = weights.down_bias.data;
        down.y = buffers_.x;
        multiply(at.stream, kernels_[at.layer][at.branch].second,
                 parts_.formats.layers[at.layer][at.branch].second, down, row_tiles(d.hidden));
    }

    template <class Activation, class BiasPolicy, class Norm, class NormWeights, class Weights>
    void run(const MixtureOfExperts<Activation, BiasPolicy>&, std::type_identity<Norm>, const Place& at,
             const NormWeights& norm, const Weights& weights) const {
        const Dims& d = parts_.dims;
        const int rows = at.rows.count, pairs = rows * d.experts_used, width = d.expert_feed_forward;
        const BranchKernels& kernels = kernels_[at.layer][at.branch];
        const BranchTiles& tiles = parts_.weights.layers[at.layer][at.branch];
        const BranchFormats formats = parts_.formats.layers[at.layer][at.branch];
        const RouterArgs<Norm> router{norm, buffers_.x,      tiles.router,   weights.router_bias.data,
                                      rows, buffers_.expert, buffers_.weight};
        kernels.router->enqueue(grid(router_launch(rows, d.experts)), at.stream, router, false);
        const ExpertSortArgs sort{buffers_.expert,      rows,          d.experts_used, buffers_.offsets,
                                  buffers_.sorted_rows, buffers_.place};
        kernels.sort->enqueue(grid(expert_sort_launch(d.experts)), at.stream, sort, false);
        ProductArgs up = product_args(tiles.first, at.normed, d.hidden, rows);
        up.x_rows = buffers_.sorted_rows;
        up.offsets = buffers_.offsets;
        up.experts = d.experts;
        up.rows = pairs;
        up.bias = weights.gate_bias.data;
        up.up_bias = weights.up_bias.data;
        up.operand = buffers_.h;
        up.operand_plane =
            static_cast<std::uint64_t>(pairs) * static_cast<std::uint64_t>(operand_stride(width));
        multiply(at.stream, kernels.first, formats.first, up, covered_tiles<Activation>(width));
        ProductArgs down = product_args(tiles.second, buffers_.h, width, pairs);
        down.offsets = buffers_.offsets;
        down.experts = d.experts;
        down.bias = weights.down_bias.data;
        down.y = buffers_.y;
        multiply(at.stream, kernels.second, formats.second, down, row_tiles(d.hidden));
        kernels.combine->enqueue(grid(combine_launch(rows)), at.stream,
                                 CombineArgs{buffers_.y, buffers_.place, buffers_.weight, buffers_.x}, false);
    }

    const ModelParts<Family>& parts_;
    int most_;
    int* overflows_;
    std::vector<std::vector<BranchKernels>> kernels_;
    const StageKernel *embed_ = nullptr, *head_norm_ = nullptr;
    const StageKernel* head_[product_variants] = {};
    Workspace workspace_;
    PrefillBuffers buffers_;
};

}  // namespace gg::cuda
