// Last stage of a feed-forward block for 1 to 8 rows: the down product and the residual.
//
//   out = x + W h + b, as partial sums [slots][rows][hidden]
//   routed: out = x + sum over the row's experts e of (W_e h_e + weight_e b_e), h_e with its weight folded
//   in: the experts of a step are multiplied as one matrix with their columns side by side.
//
// Like the output stage, it leaves the sums of a router that comes next. Bytes moved: the matrices once, of
// the experts used.
#pragma once

#include "gg/cuda/feed_forward.cuh"
#include "gg/cuda/residual_norm.cuh"

namespace gg::cuda {

template <class Dims, class FeedForward, class Format, int rows_, int next_experts>
struct DownShape {
    static constexpr int rows = rows_;
    static constexpr int matrix_columns = column_tiles(FeedForward::width);
    static constexpr MatvecShape shape =
        residual_shape(rows, Dims::hidden, FeedForward::width, FeedForward::most(rows), Tile<Format>::bytes,
                       Tile<Format>::Operand::planes, Dims::chip, next_experts);
    static constexpr int copied = copied_activation_bytes(Tile<Format>::Operand::planes, rows,
                                                          FeedForward::width, FeedForward::most(rows));
    static constexpr MatvecPlan plan = plan_matvec(shape, Dims::chip);
};

/// `next_experts` is the number of experts that the next residual routes to, 0 for none.
template <class Dims, class Block, class Format, int rows, int max_slots, int next_experts>
struct DownStage {
    using Feed = FeedForward<Block, Dims>;
    using Operand = typename Tile<Format>::Operand;
    using Shape = DownShape<Dims, Feed, Format, rows, next_experts>;
    static constexpr MatvecPlan plan = Shape::plan;
    static constexpr int residency = rows == 1 ? 2 : 1;  ///< blocks on a multiprocessor
    using Product = Matvec<Tile<Format>, Shape>;
    using Router = RouterSums<Dims, Shape, next_experts>;
    using Chosen = Choice<rows, Feed::used, Feed::most(rows)>;
    static constexpr int columns = Shape::matrix_columns;

    using Args = DownArgs;

    GG_DEVICE static void run(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        if (static_cast<int>(blockIdx.x) >= plan.blocks) return stand_by();
        launch_next();
        if constexpr (Feed::routed) {
            using Stream =
                ExpertColumnsStream<Chosen, columns, Tile<Format>::bytes, rows == 1 ? Feed::used : 0>;
            __shared__ Chosen choice;
            receive(args.choice, choice, plan.threads());
            const Stream stream{args.tiles, args.expert_bytes, &choice, choice.count};
            multiply<RoutedActivations>(args, shared, stream, choice);
        } else {
            using Stream = DenseStream<columns, Tile<Format>::bytes>;
            multiply<ChainActivations<Operand, rows, Feed::width>>(args, shared, Stream{args.tiles},
                                                                   NoChoice{});
        }
    }

  private:
    struct NoChoice {};

    /// Each row's own activations of an expert; zeros for one that it does not use.
    struct RoutedActivations {
        static constexpr int stride = operand_stride(Feed::width);
        static constexpr Size plane = Size(rows) * Feed::used * stride;

        const unsigned short* lane_base;
        const int* ranks;

        GG_DEVICE RoutedActivations(const unsigned short* h, int lane, int used_rows, const Chosen& choice) {
            const int g = lane / 4, row = g < used_rows ? g : used_rows - 1;
            lane_base = h + Size(row) * Feed::used * stride + 8 * (lane % 4);
            ranks = choice.rank[row];
        }
        template <class Place>
        GG_DEVICE void load(const Place& place, int block, uint4 (&x)[Operand::planes]) const {
            const int expert = place.k / columns, rank = rows == 1 ? expert : ranks[expert];
            const unsigned short* from = lane_base + rank * stride + place.k % columns * 64 + 32 * block;
#pragma unroll
            for (int p = 0; p < Operand::planes; ++p)
                x[p] = rank < 0 ? make_uint4(0, 0, 0, 0)
                                : load_cg(reinterpret_cast<const uint4*>(from + p * plane));
        }
    };

    template <class Activations, class Stream, class Chosen_>
    GG_DEVICE static void multiply(const Args& args, unsigned char* shared, const Stream& stream,
                                   const Chosen_& choice) {
        using Sum = typename Product::template Sum<Stream>;
        __shared__ typename Product::Shared product_shared;
        Product product(shared);
        const int tiles = Shape::shape.row_tiles * stream.columns(), block = static_cast<int>(blockIdx.x);
        const int begin = share_begin(tiles, block, plan.blocks),
                  end = share_begin(tiles, block + 1, plan.blocks);
        typename Product::template Feed<Stream> feed(product, product_shared, stream, begin, end);
        SlotSums<Shape, Dims::hidden, Once<Chosen_>> sums(begin, end, stream.columns(), args.used_rows,
                                                          {args, choice});
        Router router(reinterpret_cast<float*>(Product::activations(shared)), args.router, sums.first_row(),
                      sums.row_count());
        wait_for_previous();
        const auto activations = [&] {
            if constexpr (Shape::copied > 0)
                return CopiedActivations<Operand, Feed::width, Feed::used>(
                    args.h, Product::activations(shared), product.lane, plan.threads());
            else if constexpr (Feed::routed)
                return Activations(args.h, product.lane, args.used_rows, choice);
            else
                return Activations(args.h, product.lane, args.used_rows);
        }();
        sums.read_residual();
        product.run(
            feed, stream, activations, begin, end,
            ResidualFinish<decltype(sums), Router>{sums, router, args.out, args.router_sums, args.used_rows});
    }

    template <class Chosen_>
    struct Once {
        const Args& args;
        const Chosen_& choice;
        GG_DEVICE float constant(int i, int n) const {
            if (!args.bias) return 0.0f;
            if constexpr (Feed::routed) {
                float sum = 0.0f;
#pragma unroll
                for (int r = 0; r < Feed::used; ++r)
                    sum += choice.weight[n][r] * args.bias[Size(choice.expert[n][r]) * Dims::hidden + i];
                return sum;
            } else {
                return args.bias[i];
            }
        }
        GG_DEVICE float residual(int i, int n) const {
            return residual_value<Dims::hidden, rows, max_slots>(args.x, n, i);
        }
    };
};

}  // namespace gg::cuda
