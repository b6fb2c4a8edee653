// First stage of attention for 1 to 8 rows: norm, then the products with the stacked matrices of q, k and v.
//
//   y = norm(x);  out = W y + b, partial sums [slots][rows][width]; width and the places of k and v in it are
//   qkv_columns(Dims). The sums are added up, turned by position and cached by the next stage
//   (attention_decode.cuh), since a head's elements lie in several blocks.
//
// Bytes moved: the three matrices once; x by every block.
#pragma once

#include "gg/cuda/partial_sums.cuh"
#include "gg/cuda/residual_norm.cuh"
#include "gg/cuda/rows.hpp"

namespace gg::cuda {

/// The product's shape in numbers.
template <class Dims, class Format, int rows_>
struct QkvShape {
    static constexpr int rows = rows_;
    static constexpr bool single_sums = true;  ///< of one row (Matvec::second_sums)
    static constexpr QkvColumns columns = qkv_columns(Dims::heads, Dims::kv_heads, Dims::head_dim);
    using Activations = SharedActivations<typename Tile<Format>::Operand, rows, Dims::hidden>;
    static constexpr MatvecShape shape =
        qkv_shape(rows, Dims::hidden, columns.width, Tile<Format>::bytes, Tile<Format>::Operand::planes);
    static constexpr MatvecPlan plan = plan_matvec(shape, Dims::chip);
};

template <class Dims, class Norm, class Format, int rows, int max_slots>
struct QkvStage {
    using Shape = QkvShape<Dims, Format, rows>;
    using Product = Matvec<Tile<Format>, Shape>;
    using Stream = DenseStream<Shape::shape.column_tiles, Tile<Format>::bytes>;
    using Prologue =
        ResidualNorm<Dims, Norm, typename Tile<Format>::Operand, rows, Shape::plan.warps, max_slots>;

    using Args = QkvArgs<Norm>;

    static constexpr MatvecPlan plan = Shape::plan;
    using Sum = typename Product::template Sum<Stream>;
    static constexpr int residency = rows == 1 ? 2 : 1;  ///< blocks on a multiprocessor

    GG_DEVICE static void run(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        __shared__ typename Product::Shared product_shared;
        __shared__ typename Prologue::Shared norm_shared;
        if (static_cast<int>(blockIdx.x) >= plan.blocks) return stand_by();
        launch_next();
        Product product(shared);
        const Stream stream{args.tiles};
        constexpr int tiles = Shape::shape.row_tiles * Shape::shape.column_tiles;
        const int block = static_cast<int>(blockIdx.x);
        const int begin = share_begin(tiles, block, plan.blocks),
                  end = share_begin(tiles, block + 1, plan.blocks);
        typename Product::template Feed<Stream> feed(product, product_shared, stream, begin, end);
        SlotSums<Shape, Shape::columns.width, Once> sums(begin, end, stream.columns(), args.used_rows,
                                                         {args});
        Prologue norm(args.norm);
        wait_for_previous();
        auto* x = reinterpret_cast<unsigned short*>(Product::activations(shared));
        norm.run(args.x, args.used_rows, norm_shared, x, args.overflows);
        const typename Shape::Activations activations(x, product.lane, args.used_rows);
        product.run(feed, stream, activations, begin, end,
                    [&](int, int, const Sum& sum) { sums.store(args.out, sum); });
    }

  private:
    struct Once {
        const Args& args;
        GG_DEVICE float constant(int row, int) const { return args.bias ? args.bias[row] : 0.0f; }
        GG_DEVICE float residual(int, int) const { return 0.0f; }
    };
};

}  // namespace gg::cuda
