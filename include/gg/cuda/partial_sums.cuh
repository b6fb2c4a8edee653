// How a block leaves the sums of row tiles that it may share with its neighbours: slot s of a row tile is the
// sum of the s-th block that has a part of it, slots that no block has are zero, and what is added once (a
// bias, the residual) is added by the first.
//
// A thread knows before the wait which sum it will store, so it reads what is added to it ahead: constants
// before the wait, what the chain wrote during the product.
#pragma once

#include "gg/cuda/matvec.cuh"

namespace gg::cuda {

/// Keeps nothing.
struct KeepNoSum {
    GG_DEVICE void operator()(int, int, float) const {}
};

/// Stores a block's sums to out [slots][rows][width]. The block multiplies its tiles in one round. Once has
/// constant(row, n), weights alone, and residual(row, n), what the chain wrote: their sum is added by a row's
/// first block.
template <class Shape, int width, class Once>
class SlotSums {
  public:
    static constexpr MatvecPlan plan = Shape::plan;

    /// Before the wait. The block has tiles [begin, end) of rows of `columns` tiles.
    GG_DEVICE SlotSums(int begin, int end, int columns, int used_rows, const Once& once)
        : once_(once),
          begin_(begin),
          end_(end),
          columns_(columns),
          used_rows_(Shape::rows == 1 ? 1 : used_rows) {
        const Place at = place(static_cast<int>(threadIdx.x));
        if (!at.exists) return;
        first_share_ = share(at.row / tile_rows);
        if (first_share_.slot() == 0) first_once_ = once_.constant(at.row, at.n);
    }

    GG_DEVICE int first_row() const { return begin_ / columns_; }
    GG_DEVICE int row_count() const { return (end_ - 1) / columns_ - first_row() + 1; }

    /// After the wait.
    GG_DEVICE void read_residual() {
        const Place at = place(static_cast<int>(threadIdx.x));
        if (at.exists && first_share_.slot() == 0) first_once_ += once_.residual(at.row, at.n);
    }

    /// After the product; keep(row, n, value) sees what this block adds.
    template <class Sum, class Keep = KeepNoSum>
    GG_DEVICE void store(float* out, const Sum& sum, const Keep& keep = {}) const {
        jitter();
        Share mine = first_share_;
        float once = first_once_;
        const int values = row_count() * tile_rows * used_rows_;
#pragma unroll 1
        for (int i = static_cast<int>(threadIdx.x); i < values; i += plan.threads()) {
            const Place at = place(i);
            if (!at.exists) continue;
            if (i >= plan.threads()) {
                mine = share(at.row / tile_rows);
                once = mine.slot() == 0 ? once_.constant(at.row, at.n) + once_.residual(at.row, at.n) : 0.0f;
            }
            const float value =
                sum.over(mine.warps(), at.row / tile_rows - first_row(), at.row % tile_rows, at.n) + once;
            keep(at.row, at.n, value);
            float* to = out + (Size(mine.slot()) * Shape::rows + at.n) * width + at.row;
            *to = value;
            if (mine.last())
                for (int q = mine.slot() + 1; q < plan.slots; ++q) *(to += Size(Shape::rows) * width) = 0.0f;
        }
    }

  private:
    /// Where sum i goes.
    struct Place {
        int row, n;
        bool exists;
    };
    GG_DEVICE Place place(int i) const {
        const int in_row = row_count() * tile_rows, n = Shape::rows == 1 ? 0 : i / in_row;
        const int row = first_row() * tile_rows + i - n * in_row;
        return {row, n, row < width && i < in_row * used_rows_};
    }

    /// The block's part of a row of tiles.
    struct Share {
        unsigned bits;
        GG_DEVICE unsigned warps() const { return bits & 0xFFFFu; }  ///< that have any of it, a bit each
        GG_DEVICE int slot() const { return static_cast<int>(bits >> 17); }
        GG_DEVICE bool last() const { return bits >> 16 & 1u; }  ///< no further block has any of it
    };
    static_assert(plan.warps <= 16);
    GG_DEVICE Share share(int row_tile) const {
        const int tiles = Shape::shape.row_tiles * columns_, block = static_cast<int>(blockIdx.x);
        const int from = row_tile * columns_, to = from + columns_;
        const unsigned slot = static_cast<unsigned>(block - share_of(tiles, from, plan.blocks));
        const unsigned last = share_of(tiles, to - 1, plan.blocks) == block ? 1u : 0u;
        return {warps_of(from - begin_, to - begin_, end_ - begin_, plan.warps) | last << 16 | slot << 17};
    }

    Once once_;
    int begin_, end_, columns_, used_rows_;
    Share first_share_{0};
    float first_once_ = 0.0f;
};

}  // namespace gg::cuda
