// How the kernels of prefill are launched, as functions over values: the host plans a launch without having
// the kernels' types, and a kernel takes its own constants from the same place.
//
// A product's block computes block_row_tiles() x 16 weight rows for block_tokens() tokens. Each of its warps
// holds row_tiles x 16 rows and token_tiles x 8 tokens as sums in registers; column_warps warps share the
// columns of one such piece, and their sums are added at the end in a fixed order. A step is 64 columns for
// each of them. Blocks of few tokens are small, so that the few rows of a short prompt use the whole device.
#pragma once

#include "gg/core/device.hpp"

namespace gg::cuda {

/// What a kernel is launched with.
struct LaunchShape {
    int blocks_x, blocks_y;
    int threads;
    int shared_bytes;  ///< dynamic shared memory of a block
};

/// How a product is divided.
struct Tiling {
    int row_tiles, token_tiles;                ///< of one warp
    int row_warps, token_warps, column_warps;  ///< of a block
    int blocks;                                ///< that a multiprocessor should hold

    GG_HD constexpr int threads() const { return 32 * row_warps * token_warps * column_warps; }
    GG_HD constexpr int block_row_tiles() const { return row_tiles * row_warps; }
    GG_HD constexpr int block_tokens() const { return 8 * token_tiles * token_warps; }

    /// Shared memory for one step's activations, and for its activations and tiles.
    GG_HD constexpr int activation_bytes(int planes) const {
        return planes * column_warps * block_tokens() * 128;
    }
    GG_HD constexpr int stage_bytes(int tile_bytes, int planes) const {
        return activation_bytes(planes) + block_row_tiles() * column_warps * tile_bytes;
    }
    /// Steps held at once: at most 4, and no more than every supported device has shared memory for (99 KiB
    /// a block).
    GG_HD constexpr int stages(int tile_bytes, int planes) const {
        const int fit = 101376 / stage_bytes(tile_bytes, planes);
        return fit < 4 ? fit : 4;
    }
    GG_HD constexpr int shared_bytes(int tile_bytes, int planes) const {
        return stages(tile_bytes, planes) * stage_bytes(tile_bytes, planes);
    }
};

/// The tilings that a product is compiled for, by the rows and tokens of a block.
inline constexpr Tiling tilings[] = {
    {1, 2, 2, 1, 4, 2},  // 32 x 16
    {1, 4, 2, 1, 4, 2},  // 32 x 32
    {2, 4, 2, 2, 2, 2},  // 64 x 64
    {2, 8, 4, 2, 1, 2},  // 128 x 128
};

/// How a product of warpgroups is divided (product_warpgroup.cuh): blocks of two warpgroups, each of `parts`
/// x 64 weight rows, and of 128 tokens.
inline constexpr int warpgroup_threads = 256, warpgroup_tokens = 128;
struct WarpgroupTiling {
    int parts;
    int blocks;  ///< that a multiprocessor should hold

    static constexpr int activation_bytes = warpgroup_tokens * 128;  ///< of one step

    GG_HD constexpr int block_row_tiles() const { return 8 * parts; }
    /// Activations begin at multiples of 1024.
    GG_HD constexpr int stage_bytes(int tile_bytes) const {
        return (activation_bytes + block_row_tiles() * tile_bytes + 1023) / 1024 * 1024;
    }
    GG_HD constexpr int stages(int tile_bytes) const {
        const int fit = (227 / blocks - 2) * 1024 / stage_bytes(tile_bytes);
        return fit < 8 ? fit : 8;
    }
    GG_HD constexpr int shared_bytes(int tile_bytes) const {
        return stages(tile_bytes) * stage_bytes(tile_bytes) + 1024;
    }
};
inline constexpr WarpgroupTiling warpgroup_tilings[] = {
    {1, 2},  // 128 x 128
    {2, 1},  // 256 x 128
};
GG_HD constexpr LaunchShape warpgroup_launch(const WarpgroupTiling& tiling, int tile_bytes, int row_tiles,
                                             int rows, int experts) {
    const int tiles = tiling.block_row_tiles();
    return {(row_tiles + tiles - 1) / tiles, (rows + warpgroup_tokens - 1) / warpgroup_tokens + experts,
            warpgroup_threads, tiling.shared_bytes(tile_bytes)};
}

/// The launch of a product. `row_tiles` is what its epilogue covers; `rows` counts those of all experts, and
/// `experts` is 0 if the product is not grouped.
GG_HD constexpr LaunchShape product_launch(const Tiling& tiling, int tile_bytes, int planes, int row_tiles,
                                           int rows, int experts) {
    const int tokens = tiling.block_tokens(), tiles = tiling.block_row_tiles();
    return {(row_tiles + tiles - 1) / tiles, (rows + tokens - 1) / tokens + experts, tiling.threads(),
            tiling.shared_bytes(tile_bytes, planes)};
}

/// A product is compiled in each of `tilings` and, where there are products of warpgroups, in each of
/// `warpgroup_tilings`, which are counted on.
inline constexpr int product_tilings = 4, warpgroup_products = 2,
                     product_variants = product_tilings + warpgroup_products;
static_assert(sizeof(tilings) / sizeof(tilings[0]) == product_tilings);
static_assert(sizeof(warpgroup_tilings) / sizeof(warpgroup_tilings[0]) == warpgroup_products);

GG_HOST constexpr LaunchShape variant_launch(int variant, int tile_bytes, int planes, int row_tiles, int rows,
                                             int experts) {
    return variant < product_tilings
               ? product_launch(tilings[variant], tile_bytes, planes, row_tiles, rows, experts)
               : warpgroup_launch(warpgroup_tilings[variant - product_tilings], tile_bytes, row_tiles, rows,
                                  experts);
}

/// Which variant serves a product best: blocks of about as many tokens as there are, and of 128 rows only if
/// enough blocks remain. `warpgroups`: whether there are products of them for the format. Theirs pay from 17
/// tokens an expert and half a block a multiprocessor on (docs/prefill.md), blocks of 256 rows if those fill
/// the device twice, or once where blocks of 128 rows would not.
GG_HD constexpr int choose_product(int row_tiles, int rows, int experts, int multiprocessors,
                                   bool warpgroups) {
    const int tokens = experts > 0 ? (rows + experts - 1) / experts : rows;
    const int columns = (tokens + 127) / 128 * (experts > 0 ? experts : 1);
    const int blocks = (row_tiles + 7) / 8 * columns, large = (row_tiles + 15) / 16 * columns;
    if (warpgroups && tokens > 16 && 2 * blocks > multiprocessors) {
        const bool wide =
            large >= 2 * multiprocessors || (blocks > multiprocessors && large <= multiprocessors);
        return product_tilings + (wide ? 1 : 0);
    }
    if (tokens <= 16) return 0;
    if (tokens <= 32) return 1;
    return tokens <= 64 || blocks < multiprocessors ? 2 : 3;
}

/// One warp a row, for norms; `threads` a block.
inline constexpr int norm_threads = 128;
GG_HD constexpr LaunchShape norm_rows_launch(int rows) {
    return {(rows + norm_threads / 32 - 1) / (norm_threads / 32), 1, norm_threads, 0};
}

/// Router: a block's 8 warps share the columns of its rows, 16 at a time, in stages of their own. Blocks of
/// few rows spread a short prompt over the device, those of many read the weights less often.
inline constexpr int router_experts = 32, router_columns = 16, router_threads = 256;
inline constexpr int router_pitch = router_columns + 4;  ///< floats from one row of a stage to the next
/// Shared memory of a block of `rows` rows beside its stages: sums of squares, all logits.
GG_HD constexpr int router_result_bytes(int rows, int experts) {
    return 4 * rows * (router_threads / 32 + experts);
}
/// One stage of all warps.
GG_HD constexpr int router_stage_bytes(int rows) {
    return 4 * (router_threads / 32) * (router_experts + rows) * router_pitch;
}
/// Stages held at once: at most 4, and no more than every supported device has shared memory for (99 KiB a
/// block).
GG_HD constexpr int router_stages(int rows, int experts) {
    const int fit = (101376 - router_result_bytes(rows, experts)) / router_stage_bytes(rows);
    return fit < 4 ? fit : 4;
}
/// Whether a block of as many rows has room for two stages at least.
GG_HD constexpr bool router_fits(int rows, int experts) {
    return router_stages(rows, experts) >= 2;
}
/// Rows of a block, 4, 16 or 32: as many as leave a block for each of about 128 multiprocessors.
GG_HD constexpr int router_rows(int rows, int experts) {
    if (rows <= 128 * 4) return 4;
    return rows <= 128 * 16 || !router_fits(32, experts) ? 16 : 32;
}
/// What a block of `rows` rows takes; 0 if it does not fit.
GG_HD constexpr int router_block_bytes(int rows, int experts) {
    if (!router_fits(rows, experts)) return 0;
    return router_stages(rows, experts) * router_stage_bytes(rows) + router_result_bytes(rows, experts);
}
/// The same for every number of rows: a kernel has one size.
GG_HD constexpr int router_shared_bytes(int experts) {
    int most = router_block_bytes(4, experts);
    if (const int bytes = router_block_bytes(16, experts); bytes > most) most = bytes;
    if (const int bytes = router_block_bytes(32, experts); bytes > most) most = bytes;
    return most;
}
GG_HD constexpr LaunchShape router_launch(int rows, int experts) {
    const int block = router_rows(rows, experts);
    return {(rows + block - 1) / block, 1, router_threads, router_shared_bytes(experts)};
}

/// Sorting by expert: one block an expert.
inline constexpr int sort_threads = 1024;
GG_HD constexpr LaunchShape expert_sort_launch(int experts) {
    return {experts, 1, sort_threads, 2 * (sort_threads / 32) * 4};
}

/// Adding up experts, and the embedding: one block a row.
inline constexpr int combine_threads = 256;
GG_HD constexpr LaunchShape combine_launch(int rows) {
    return {rows, 1, combine_threads, 0};
}
inline constexpr int embed_threads = 128;
GG_HD constexpr LaunchShape embed_launch(int rows) {
    return {rows, 1, embed_threads, 0};
}

}  // namespace gg::cuda
