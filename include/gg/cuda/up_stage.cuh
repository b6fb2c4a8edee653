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
    using Router = Route<FeedForward, rows, Dims::chip.multiprocessors>;
    /// Sums of router logits, then what the features of the first round need.
    static constexpr int table_bytes = Router::shared_bytes > 2048 ? Router::shared_bytes : 2048;
    static constexpr MatvecShape shape = {
        rows, matrix_rows* FeedForward::most(rows), column_tiles(Dims::hidden), Tile<Format>::bytes,
        true, Activations::bytes + table_bytes};
    static constexpr MatvecPlan plan = plan_matvec(shape, Dims::chip);

    GG_DEVICE static unsigned char* table(unsigned char* shared) {
        return shared + plan.shared_bytes - table_bytes;
    }
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
        if (static_cast<int>(blockIdx.x) >= plan.blocks) return stand_by();
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
        typename Product::template Feed<Stream> feed(product, product_shared, stream, begin, end);
        const Finish<DenseTargets> finish(args, {}, shared, begin, end);
        Prologue norm(args.norm);
        wait_for_previous();
        auto* x = reinterpret_cast<unsigned short*>(Product::activations(shared));
        norm.run(args.x, args.used_rows, norm_shared, x, args.overflows);
        const typename Shape::Activations activations(x, product.lane, args.used_rows);
        product.run(feed, stream, activations, begin, end, finish);
    }

    GG_DEVICE static void run_routed(const Args& args) {
        using Stream = ExpertRowsStream<Chosen, matrix_rows, columns, Tile<Format>::bytes>;
        using Router = typename Shape::Router;
        using Sum = typename Product::template Sum<Stream>;
        extern __shared__ __align__(128) unsigned char shared[];
        __shared__ typename Product::Shared product_shared;
        __shared__ typename Prologue::Shared norm_shared;
        __shared__ Chosen choice;
        Product product(shared);
        const Stream stream{args.tiles, args.expert_bytes, &choice};
        typename Product::template Feed<Stream> feed(product, product_shared, stream);
        Prologue norm(args.norm);
        Router router(args.router_bias);
        wait_for_previous();
        auto* x = reinterpret_cast<unsigned short*>(Product::activations(shared));
        const Routing<Router> routing{args, router, reinterpret_cast<float*>(Shape::table(shared)), choice};
        norm.run(args.x, args.used_rows, norm_shared, x, args.overflows, routing);
        Router::list(args.used_rows, choice);
        int begin, end;
        block_run(matrix_rows * choice.count, begin, end);
        feed.start(begin, end);
        if (product.warp == 0) {
            if (rows > 1 && blockIdx.x == 0) publish(choice, args.choice);
            launch_next();
            if (rows == 1 && blockIdx.x > 0) router.weigh(0, choice);
        }
        const Finish<RoutedTargets> finish(args, {choice}, shared, begin, end);
        const typename Shape::Activations activations(x, product.lane, args.used_rows);
        product.run(feed, stream, activations, begin, end, finish);
    }

    /// The choice of experts while the rows are normed.
    template <class Router>
    struct Routing {
        const Args& args;
        Router& router;
        float* partial;
        Chosen& choice;

        GG_DEVICE void loading() const {
            router.gather(args.router_sums, args.router_blocks, args.used_rows, partial);
        }
        GG_DEVICE void scaled(int row, float scale) const {
            router.select(row, scale, partial, choice);
            if (rows > 1 || blockIdx.x == 0) router.weigh(row, choice);
            if (rows == 1 && blockIdx.x == 0) publish(choice, args.choice);
        }
    };

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
    };
    struct DenseTargets {
        GG_DEVICE Target operator()(int row, int) const { return {row, 0, 0}; }
        GG_DEVICE float weight(int, int) const { return 1.0f; }
    };
    struct RoutedTargets {
        const Chosen& choice;
        GG_DEVICE Target operator()(int row, int n) const {
            const int place = row / matrix_rows;
            return {row - place * matrix_rows, choice.listed[place], choice.rank[n][place]};
        }
        /// Once the weights are there.
        GG_DEVICE float weight(int n, int rank) const { return choice.weight[n][rank]; }
    };

    /// What a feature needs besides its sums and its weight.
    struct Feature {
        int rank;        ///< of its expert; -1: the feature is 0
        unsigned warps;  ///< that have a part of its sums
        int at;          ///< where in h it goes; -1: nowhere
        int biased;      ///< whether it has biases
    };

    /// What becomes of the sums (Matvec::run): a thread a feature. Those of the first round are described in
    /// shared memory while the weights are on their way.
    template <class Targets>
    struct Finish {
        static constexpr int features = Shape::tile_features, stride = operand_stride(Feed::width);
        static constexpr int described = Shape::table_bytes / (static_cast<int>(sizeof(Feature)) + 8);

        const Args& args;
        const Targets targets;
        unsigned char* shared;  ///< of the stage
        int block_begin;

        GG_DEVICE Finish(const Args& a, const Targets& t, unsigned char* memory, int begin, int end)
            : args(a), targets(t), shared(memory), block_begin(begin) {
            const int rows_left = (end - begin) / columns;
            const int row_count = rows_left < plan.round_rows ? rows_left : plan.round_rows;
            const int count = row_count * features * args.used_rows;
            for (int i = static_cast<int>(threadIdx.x); i < count && i < described; i += plan.threads()) {
                Size bias;
                const Feature f = describe(i, begin / columns, row_count, bias);
                table()[i] = f;
                if (!f.biased) continue;
                copy_async_4(biases() + 2 * i, args.up_bias + bias);
                if constexpr (Activation::gated) copy_async_4(biases() + 2 * i + 1, args.gate_bias + bias);
            }
            copy_async_commit();
        }
        /// Before the barrier that ends the product.
        GG_DEVICE void ready(int, int) const { copy_async_wait<0>(); }

        /// Two neighbours of a warp have two neighbouring features.
        template <class Sum>
        GG_DEVICE void operator()(int first_row, int row_count, const Sum& sum) const {
            constexpr Size plane = Size(rows) * Feed::used * stride;
            const int count = row_count * features * args.used_rows;
            const int lane = static_cast<int>(threadIdx.x) % warp_size;
            jitter();
#pragma unroll 1
            for (int base = static_cast<int>(threadIdx.x) - lane; base < count; base += plan.threads()) {
                const int i = base + lane < count ? base + lane : count - 1;
                const bool ahead = first_row == block_begin / columns && i < described;
                Size bias = 0;
                const Feature f = ahead ? table()[i] : describe(i, first_row, row_count, bias);
                const float* const up_bias = ahead ? biases() + 2 * i : args.up_bias + bias;
                const float* const gate_bias = ahead ? up_bias + 1 : args.gate_bias + bias;
                const int n = row_of(i, row_count), local = i - n * row_count * features;
                const auto summed = [&](int row) { return sum.over(f.warps, local / features, row, n); };
                float value = summed(local % features + (Activation::gated ? features : 0)) +
                              (f.biased ? *up_bias : 0.0f);
                if constexpr (Activation::gated)
                    value =
                        Activation::apply(summed(local % features) + (f.biased ? *gate_bias : 0.0f), value);
                else
                    value = Activation::apply(value);
                const float weight = f.rank < 0 ? 0.0f : targets.weight(n, f.rank);
                value = weight == 0.0f ? 0.0f : value * weight;
                const float next = __shfl_down_sync(whole_warp, value, 1);
                if (lane % 2 == 0 && base + lane < count && f.at >= 0)
                    store_operand<NextOperand>(args.h, plane, static_cast<Size>(f.at), value, next,
                                               args.overflows);
            }
        }

      private:
        /// Up and gate bias of each described feature.
        GG_DEVICE float* biases() const {
            return reinterpret_cast<float*>(table() + described);
        }
        GG_DEVICE Feature* table() const {
            return reinterpret_cast<Feature*>(Shape::table(shared));
        }
        GG_DEVICE static int row_of(int i, int row_count) {
            return rows == 1 ? 0 : i / (row_count * features);
        }

        /// `bias`: where the feature's biases are, if it has any.
        GG_DEVICE Feature describe(int i, int first_row, int row_count, Size& bias) const {
            const int n = row_of(i, row_count), local = i - n * row_count * features;
            const int row = local / features, tiles = row_count * columns;
            const Target target = targets(first_row + row, n);
            const int feature = target.row_tile * features + local % features;
            Feature f{-1, warps_of(row * columns, (row + 1) * columns, tiles, plan.warps), -1, 0};
            if (target.rank < 0) return f;
            f.at = (n * Feed::used + target.rank) * stride + feature;
            if (feature >= Feed::width) return f;
            f.rank = target.rank;
            f.biased = args.up_bias != nullptr;
            bias = Size(target.expert) * Feed::width + feature;
            return f;
        }
    };
};

}  // namespace gg::cuda
