// How a block leaves the sums of row tiles that it may share with its neighbours: slot s of a row tile is the
// sum of the s-th block that has a part of it, slots that no block has are zero, and what is added once (a
// bias, the residual) is added by the first.
#pragma once

#include "gg/cuda/matvec.cuh"

namespace gg::cuda {

/// Keeps nothing.
struct KeepNoSum {
    GG_DEVICE void operator()(int, int, float) const {}
};

/// Stores sums of the row tiles [first_row, first_row + row_count) to out [slots][rows][width]. once(row, n)
/// is added by a row's first block; keep(row, n, value) sees what this block adds. `columns` are the tiles in
/// a row of tiles.
template <class Shape, int width, class Sum, class Once, class Keep = KeepNoSum>
GG_DEVICE void store_partial_sums(float* out, int used_rows, int first_row, int row_count, const Sum& sum,
                                  const Once& once, const Keep& keep = {},
                                  int columns = Shape::shape.column_tiles) {
    constexpr MatvecPlan plan = Shape::plan;
    const int tiles = Shape::shape.row_tiles * columns;
    const int block = static_cast<int>(blockIdx.x);
    const int values = row_count * tile_rows * used_rows;
    jitter();
    for (int i = static_cast<int>(threadIdx.x); i < values; i += plan.threads()) {
        const int n = i / (row_count * tile_rows), local = i % (row_count * tile_rows);
        const int row_tile = first_row + local / tile_rows, row = row_tile * tile_rows + local % tile_rows;
        if (row >= width) continue;
        const int first = share_of(tiles, row_tile * columns, plan.blocks);
        const int last = share_of(tiles, (row_tile + 1) * columns - 1, plan.blocks);
        const int slot = block - first;
        float value = sum(row_tile, local % tile_rows, n);
        if (slot == 0) value += once(row, n);
        keep(row, n, value);
        out[(Size(slot) * Shape::rows + n) * width + row] = value;
        if (block == last)
            for (int q = slot + 1; q < plan.slots; ++q) out[(Size(q) * Shape::rows + n) * width + row] = 0.0f;
    }
}

}  // namespace gg::cuda
