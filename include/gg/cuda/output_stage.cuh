// Last stage of attention for 1 to 8 rows: the output product and the residual.
//
//   out = x + W mixed + b, as partial sums [slots][rows][hidden]; mixed is the operand [planes][rows]
//   [operand_stride(heads * head_dim)] that attention_decode.cuh wrote.
//
// If the residual that comes next routes to experts, each block also leaves what its sums add to every router
// logit: the normed row is linear in x but for one factor, so with the norm's gain folded into the router's
// matrix   logit_e = scale * sum over blocks of partial[block][row][e] + bias_e,
// and no block has to read the whole router. Bytes moved: W once, the router's matrix once.
#pragma once

#include "gg/cuda/partial_sums.cuh"
#include "gg/cuda/residual_norm.cuh"
#include "gg/cuda/router_sums.cuh"

namespace gg::cuda {

template <class Dims, class Format, int rows_, int experts>
struct OutputShape {
    static constexpr int rows = rows_;
    static constexpr int width = Dims::heads * Dims::head_dim;
    static constexpr MatvecShape shape =
        residual_shape(rows, Dims::hidden, width, 1, Tile<Format>::bytes, Tile<Format>::Operand::planes,
                       Dims::chip, experts, true);
    static constexpr int copied = copied_activation_bytes(Tile<Format>::Operand::planes, rows, width, 1);
    static constexpr MatvecPlan plan = plan_matvec(shape, Dims::chip);
};

/// `experts` is the number of experts that the next residual routes to, 0 for none.
template <class Dims, class Format, int rows, int max_slots, int experts>
struct OutputStage {
    using Shape = OutputShape<Dims, Format, rows, experts>;
    using Product = Matvec<Tile<Format>, Shape>;
    using Stream = DenseStream<Shape::shape.column_tiles, Tile<Format>::bytes>;
    using Operand = typename Tile<Format>::Operand;
    using Router = RouterSums<Dims, Shape, experts>;

    using Args = OutputArgs;

    static constexpr MatvecPlan plan = Shape::plan;
    using Sum = typename Product::template Sum<Stream>;
    static constexpr int residency = rows == 1 ? 2 : 1;  ///< blocks on a multiprocessor

    GG_DEVICE static void run(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        __shared__ typename Product::Shared product_shared;
        if (static_cast<int>(blockIdx.x) >= plan.blocks) return stand_by();
        launch_next();
        Product product(shared);
        const Stream stream{args.tiles};
        constexpr int tiles = Shape::shape.row_tiles * Shape::shape.column_tiles;
        const int block = static_cast<int>(blockIdx.x);
        const int begin = share_begin(tiles, block, plan.blocks),
                  end = share_begin(tiles, block + 1, plan.blocks);
        typename Product::template Feed<Stream> feed(product, product_shared, stream, begin, end);
        SlotSums<Shape, Dims::hidden, Once> sums(begin, end, stream.columns(), args.used_rows, {args});
        Router router(reinterpret_cast<float*>(Product::activations(shared)), args.router, sums.first_row(),
                      sums.row_count());
        wait_for_previous();
        const auto activations = [&] {
            if constexpr (Shape::copied > 0)
                return CopiedActivations<Operand, Shape::width>(args.mixed, Product::activations(shared),
                                                                product.lane, plan.threads());
            else
                return ChainActivations<Operand, rows, Shape::width>(args.mixed, product.lane,
                                                                     args.used_rows);
        }();
        sums.read_residual();
        product.run(
            feed, stream, activations, begin, end,
            ResidualFinish<decltype(sums), Router>{sums, router, args.out, args.router_sums, args.used_rows});
    }

  private:
    struct Once {
        const Args& args;
        GG_DEVICE float constant(int i, int) const { return args.bias ? args.bias[i] : 0.0f; }
        GG_DEVICE float residual(int i, int n) const {
            return residual_value<Dims::hidden, rows, max_slots>(args.x, n, i);
        }
    };
};

}  // namespace gg::cuda
