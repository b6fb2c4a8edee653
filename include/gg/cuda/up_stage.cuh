// First stage of a feed-forward block for 1 to 8 rows: norm, route if it has experts, the up product (gate
// and up together where the activation is gated), the activation.
//
//   y = norm(x);  h = a(W_gate y + b_gate, W_up y + b_up), or a(W_up y + b_up);  routed: h times the row's
//   weight of the expert, so that the next stage's product over all experts is the weighted sum.
//
// h is the operand [planes][rows][used][operand_stride(width)] of the next product; zeros are written up
// to the end of the last feature tile, the padding behind it never: the caller clears it once. Gated matrices
// are interleaved: rows 0 to 7 of a tile are gate features, rows 8 to 15 the up rows of the same features.
// Bytes moved: the matrices once, of the experts used.
#pragma once

#include "gg/cuda/feed_forward.cuh"
#include "gg/cuda/residual_norm.cuh"

namespace gg::cuda {

template <class Dims, class FeedForward, class Format, int rows_>
struct UpShape {
    static constexpr int rows = rows_;
    static constexpr int tile_features = FeedForward::Activation::gated ? 8 : 16;
    static constexpr int matrix_rows = (FeedForward::width + tile_features - 1) / tile_features;
    using Activations = SharedActivations<typename Tile<Format>::Operand, rows, Dims::hidden>;
    static constexpr MatvecShape shape = {rows,
                                          matrix_rows* FeedForward::most(rows),
                                          column_tiles(Dims::hidden),
                                          Tile<Format>::bytes,
                                          true,
                                          Activations::bytes};
    static constexpr MatvecPlan plan = plan_matvec(shape, Dims::chip);
};

/// NextOperand is what the down product takes.
template <class Dims, class Norm, class Block, class Format, class NextOperand, int rows, int max_slots>
struct UpStage {
    using Feed = FeedForward<Block, Dims>;
    using Activation = typename Feed::Activation;
    using Shape = UpShape<Dims, Feed, Format, rows>;
    static constexpr MatvecPlan plan = Shape::plan;
    static constexpr int residency = rows == 1 ? 2 : 1;  ///< blocks on a multiprocessor
    using Product = Matvec<Tile<Format>, Shape>;
    using Prologue = ResidualNorm<Dims, Norm, typename Tile<Format>::Operand, rows, plan.warps, max_slots>;
    using Chosen = Choice<rows, Feed::used, Feed::most(rows)>;
    static constexpr int columns = Shape::shape.column_tiles, matrix_rows = Shape::matrix_rows;
    static_assert(!Feed::routed || !Norm::centred, "routing sums up rows that a norm only scales");

    using Args = UpArgs<Norm>;

    GG_DEVICE static void run(const Args& args) {
        if constexpr (Feed::routed)
            run_routed(args);
        else
            run_dense(args);
    }

  private:
    GG_DEVICE static void run_dense(const Args& args) {
        using Stream = DenseStream<columns, Tile<Format>::bytes>;
        using Sum = typename Product::template Sum<Stream>;
        extern __shared__ __align__(128) unsigned char shared[];
        __shared__ typename Product::Shared product_shared;
        __shared__ typename Prologue::Shared norm_shared;
        launch_next();
        Product product(shared);
        const Stream stream{args.tiles};
        int begin, end;
        block_run(matrix_rows, begin, end);
        typename Product::template Feed<Stream> feed(product, product_shared, stream, begin, end,
                                                     round_tiles);
        wait_for_previous();
        auto* x = reinterpret_cast<unsigned short*>(Product::activations(shared));
        Prologue::run(args.x, args.used_rows, args.norm, norm_shared, x, args.overflows);
        const typename Shape::Activations activations(x, product.lane, args.used_rows);
        product.run(
            feed, stream, activations, begin, end, round_tiles,
            [&](int first_row, int row_count, const Sum& sum) {
                finish(args, first_row, row_count, sum, [](int row, int) { return Target{row, 0, 0, 1.0f}; });
            });
    }

    GG_DEVICE static void run_routed(const Args& args) {
        using Stream = ExpertRowsStream<Chosen, matrix_rows, columns, Tile<Format>::bytes>;
        using Router = Route<Feed, rows, plan.warps>;
        static_assert(Router::partial_floats * 4 <= plan.ring_bytes);
        using Sum = typename Product::template Sum<Stream>;
        extern __shared__ __align__(128) unsigned char shared[];
        __shared__ typename Product::Shared product_shared;
        __shared__ typename Prologue::Shared norm_shared;
        __shared__ Chosen choice;
        Product product(shared);
        const Stream stream{args.tiles, args.expert_bytes, &choice};
        typename Product::template Feed<Stream> feed(product, product_shared, stream);
        wait_for_previous();
        auto* x = reinterpret_cast<unsigned short*>(Product::activations(shared));
        const Routing<Router> routing{args, reinterpret_cast<float*>(shared), choice};
        Prologue::run(args.x, args.used_rows, args.norm, norm_shared, x, args.overflows, routing);
        Router::list(args.used_rows, choice);
        int begin, end;
        block_run(matrix_rows * choice.count, begin, end);
        feed.start(begin, end, round_tiles);
        if (blockIdx.x == 0) publish(choice, args.choice, plan.threads());
        launch_next();
        const typename Shape::Activations activations(x, product.lane, args.used_rows);
        product.run(feed, stream, activations, begin, end, round_tiles,
                    [&](int first_row, int row_count, const Sum& sum) {
                        finish(args, first_row, row_count, sum, [&](int row, int n) {
                            const int place = row / matrix_rows, rank = choice.rank[n][place];
                            return Target{row % matrix_rows, choice.listed[place], rank,
                                          rank < 0 ? 0.0f : choice.weight[n][rank]};
                        });
                    });
    }

    /// The choice of experts while the rows are normed; its sums lie where the ring will.
    template <class Router>
    struct Routing {
        const Args& args;
        float* partial;
        Chosen& choice;

        GG_DEVICE void loading() const {
            Router::gather(args.router_sums, args.router_blocks, args.used_rows, partial);
            copy_engine_fence();  // the ring takes the place of the sums
        }
        GG_DEVICE void scaled(int row, float scale) const {
            Router::select(row, args.router_bias, scale, partial, choice);
            copy_engine_fence();
        }
    };

    static constexpr int round_tiles = plan.round_rows * columns;

    GG_DEVICE static void block_run(int row_count, int& begin, int& end) {
        const int block = static_cast<int>(blockIdx.x);
        begin = share_begin(row_count, block, plan.blocks) * columns;
        end = share_begin(row_count, block + 1, plan.blocks) * columns;
    }

    /// Where the features of a row tile go for one row.
    struct Target {
        int row_tile;  ///< of the expert's matrix
        int expert;
        int rank;  ///< -1: the row does not use the expert
        float weight;
    };

    template <class Sum, class TargetOf>
    GG_DEVICE static void finish(const Args& args, int first_row, int row_count, const Sum& sum,
                                 const TargetOf& target_of) {
        constexpr int tile_pairs = Shape::tile_features / 2;
        constexpr int stride = operand_stride(Feed::width);
        constexpr Size plane = Size(rows) * Feed::used * stride;
        const int pairs = row_count * tile_pairs;
        jitter();
        for (int i = static_cast<int>(threadIdx.x); i < pairs * args.used_rows; i += plan.threads()) {
            const int n = i / pairs, row_tile = first_row + i % pairs / tile_pairs;
            const Target target = target_of(row_tile, n);
            if (target.rank < 0) continue;
            const int local = 2 * (i % tile_pairs), feature = target.row_tile * Shape::tile_features + local;
            float values[2];
#pragma unroll
            for (int k = 0; k < 2; ++k)
                values[k] =
                    feature + k < Feed::width
                        ? activate(args, target, row_tile, local + k, feature + k, n, sum) * target.weight
                        : 0.0f;
            unsigned short* to = args.h + (Size(n) * Feed::used + target.rank) * stride;
            store_operand<NextOperand>(to, plane, Size(feature), values[0], values[1], args.overflows);
        }
    }

    template <class Sum>
    GG_DEVICE static float activate(const Args& args, const Target& target, int row_tile, int local,
                                    int feature, int n, const Sum& sum) {
        const Size bias_at = Size(target.expert) * Feed::width + feature;
        if constexpr (Activation::gated) {
            float gate = sum(row_tile, local, n), up = sum(row_tile, local + 8, n);
            if (args.gate_bias) {
                gate += args.gate_bias[bias_at];
                up += args.up_bias[bias_at];
            }
            return Activation::apply(gate, up);
        } else {
            float up = sum(row_tile, local, n);
            if (args.up_bias) up += args.up_bias[bias_at];
            return Activation::apply(up);
        }
    }
};

}  // namespace gg::cuda
