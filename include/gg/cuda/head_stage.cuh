// The head for 1 to 8 rows: final norm and the product with the vocabulary's matrix.
//
//   logits = W norm(x), float32 [vocabulary] for each row that wants them. Bytes moved: the matrix once.
#pragma once

#include "gg/cuda/residual_norm.cuh"

namespace gg::cuda {

template <class Dims, class Format, int rows_>
struct HeadShape {
    static constexpr int rows = rows_;
    using Activations = SharedActivations<typename Tile<Format>::Operand, rows, Dims::hidden>;
    static constexpr MatvecShape shape = {.rows = rows,
                                          .row_tiles = row_tiles(Dims::vocabulary),
                                          .column_tiles = column_tiles(Dims::hidden),
                                          .tile_bytes = Tile<Format>::bytes,
                                          .whole_rows = true,
                                          .activation_bytes = Activations::bytes,
                                          .dealt = true};
    static constexpr MatvecPlan plan = plan_matvec(shape, Dims::chip);
};

template <class Dims, class Norm, class Format, int rows, int max_slots>
struct HeadStage {
    using Shape = HeadShape<Dims, Format, rows>;
    static constexpr MatvecPlan plan = Shape::plan;
    static constexpr int residency = rows == 1 ? 2 : 1;  ///< blocks on a multiprocessor
    using Product = Matvec<Tile<Format>, Shape>;
    using Stream = DenseStream<Shape::shape.column_tiles, Tile<Format>::bytes>;
    using Sum = typename Product::template Sum<Stream>;
    using Prologue = ResidualNorm<Dims, Norm, typename Tile<Format>::Operand, rows, plan.warps, max_slots>;

    using Args = HeadArgs<Norm>;

    GG_DEVICE static void run(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        __shared__ typename Product::Shared product_shared;
        __shared__ typename Prologue::Shared norm_shared;
        __shared__ float* logits[rows];
        if (static_cast<int>(blockIdx.x) >= plan.blocks) return stand_by();
        launch_next();
        Product product(shared);
        const Stream stream{args.tiles};
        constexpr int columns = Shape::shape.column_tiles;
        const int block = static_cast<int>(blockIdx.x);
        const int begin = share_begin(Shape::shape.row_tiles, block, plan.blocks) * columns;
        const int end = share_begin(Shape::shape.row_tiles, block + 1, plan.blocks) * columns;
        typename Product::template Feed<Stream> feed(product, product_shared, stream, begin, end);
        Prologue norm(args.norm);
        wait_for_previous();
        if (threadIdx.x < rows)
            logits[threadIdx.x] =
                static_cast<int>(threadIdx.x) < args.used_rows ? args.rows[threadIdx.x].logits : nullptr;
        auto* x = reinterpret_cast<unsigned short*>(Product::activations(shared));
        norm.run(args.x, args.used_rows, norm_shared, x, args.overflows);
        const typename Shape::Activations activations(x, product.lane, args.used_rows);
        product.run(feed, stream, activations, begin, end, [&](int first_row, int row_count, const Sum& sum) {
            const int values = row_count * tile_rows;
            jitter();
            for (int i = static_cast<int>(threadIdx.x); i < values * args.used_rows; i += plan.threads()) {
                const int n = i / values, local = i % values, row_tile = first_row + local / tile_rows;
                const int row = first_row * tile_rows + local;
                if (row < Dims::vocabulary && logits[n]) logits[n][row] = sum(row_tile, local % tile_rows, n);
            }
        });
    }
};

}  // namespace gg::cuda
