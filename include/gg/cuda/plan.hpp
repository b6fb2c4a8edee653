// How a matrix-vector stage is laid out on a chip: blocks, warps, shared memory, partial sums. Constant
// expressions over values, so that kernels use them as constants and the host computes the same launch
// without the kernels' types.
//
// A matrix's tiles are numbered row tile by row tile. Block c takes the contiguous run [N c / G, N (c+1) / G)
// of N tiles, warp w the same share of its block's run: no block waits for a tail of more than one tile. A
// row of tiles that several blocks share is left as partial sums, one slot a block in block order, and the
// next stage adds the slots up. Where a row of tiles must stay whole (an activation follows, or there are
// very many), the run is a run of whole rows, worked through in rounds.
#pragma once

#include "gg/core/device.hpp"

namespace gg::cuda {

/// What the plan must know of a chip.
struct Chip {
    int multiprocessors;
    int shared_half;   ///< bytes of shared memory of one of two blocks on a multiprocessor, its own 1 KiB off
    int shared_whole;  ///< of a block alone
};

/// Shared memory left for what a stage declares itself: barriers, statistics, and each row's experts.
GG_HD constexpr int reserved_shared_bytes(int rows) {
    return rows == 1 ? 1280 : 4096;
}

/// One stage's product.
struct MatvecShape {
    int rows;          ///< of activations, at most 8
    int row_tiles;     ///< of the matrices multiplied in one step together, at most
    int column_tiles;  ///< likewise
    int tile_bytes;
    bool whole_rows;       ///< whether a row of tiles stays within a block
    int activation_bytes;  ///< shared memory for activations
    bool crowds = false;   ///< whether two of its blocks might be put on one multiprocessor (see plan_matvec)
    bool dealt = false;    ///< whether a long step of one row may have more blocks than multiprocessors
};

struct MatvecPlan {
    int blocks;
    int warps;
    int chunk_tiles;  ///< tiles that one copy brings
    int depth;        ///< copies under way for each warp
    int round_rows;   ///< row tiles that a block sums at a time
    int slots;        ///< blocks that share a row of tiles, at most; 1 for whole rows
    int ring_bytes;
    int sum_bytes;
    int shared_bytes;
    int pause;  ///< nanoseconds between a warp's copies before the wait

    GG_HD constexpr int threads() const { return warps * 32; }
};

/// Multiprocessors get unequal parts of the memory's bandwidth. Where a multiprocessor's share of a step is
/// at least long_share fillings of a block's shared memory, blocks of dealt_share fillings are dealt out by
/// the hardware, to each multiprocessor as many as it gets through. Shorter shares do not pay for the
/// beginnings.
inline constexpr int long_share = 16, dealt_share = 3;

/// The copy engine moves pieces of about this many bytes at full speed, and a warp spends little on each.
inline constexpr int copy_bytes = 2176;

/// Where block c of `blocks` begins in `units`. (Products stay below 2^32: 25 million tiles, 170 blocks.)
GG_HD constexpr int share_begin(int units, int c, int blocks) {
    return static_cast<int>(static_cast<unsigned>(units) * static_cast<unsigned>(c) /
                            static_cast<unsigned>(blocks));
}

/// Which share unit `u` is in.
GG_HD constexpr int share_of(int units, int u, int shares) {
    return static_cast<int>(((static_cast<unsigned>(u) + 1) * static_cast<unsigned>(shares) - 1) /
                            static_cast<unsigned>(units));
}

namespace detail {

GG_HD constexpr int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}
GG_HD constexpr int at_most(int a, int b) {
    return a < b ? a : b;
}

/// How a warp's `bytes` of shared memory are divided: as many tiles as possible, in at least two pieces of
/// about copy_bytes. Depth 0 if there is too little.
struct CopyPlan {
    int tiles, depth;
};
GG_HD constexpr CopyPlan plan_copies(int bytes, int tile_bytes) {
    CopyPlan best{1, 0};
    int best_distance = 0;
    for (int tiles = 1; tiles == 1 || tiles * tile_bytes <= 2 * copy_bytes; ++tiles) {
        const int piece = tiles * tile_bytes, depth = at_most(8, bytes > 0 ? bytes / piece : 0);
        const int distance = piece > copy_bytes ? piece - copy_bytes : copy_bytes - piece;
        const int more = depth * tiles - best.depth * best.tiles;
        if (depth < 2 || more < 0 || (more == 0 && distance >= best_distance)) continue;
        best = {tiles, depth};
        best_distance = distance;
    }
    return best;
}

GG_HD constexpr MatvecPlan plan_with_warps(const MatvecShape& s, const Chip& chip, int warps) {
    MatvecPlan p{};
    const int tiles = s.row_tiles * s.column_tiles;
    const int useful = tiles / warps > 1 ? tiles / warps : 1;  // a tile a warp
    p.blocks = at_most(chip.multiprocessors, s.whole_rows ? s.row_tiles : useful);
    const int filling = chip.shared_half / (s.column_tiles * s.tile_bytes);  // rows of tiles
    if (s.dealt && s.rows == 1 && filling > 0 && s.row_tiles / p.blocks >= long_share * filling)
        p.blocks = ceil_div(s.row_tiles, dealt_share * filling);
    p.warps = warps;
    const int block_rows = ceil_div(s.row_tiles, p.blocks);
    p.round_rows = s.whole_rows ? at_most(16, block_rows) : block_rows + 1;
    p.slots = s.whole_rows ? 1 : ceil_div(p.blocks, s.row_tiles) + 1;
    p.sum_bytes = (p.round_rows + warps) * 16 * s.rows * 4;
    const int budget = s.rows == 1 ? chip.shared_half : chip.shared_whole;
    const int left = budget - s.activation_bytes - p.sum_bytes - reserved_shared_bytes(s.rows);
    const CopyPlan copies = plan_copies(left / warps, s.tile_bytes);
    p.chunk_tiles = copies.tiles;
    p.depth = copies.depth;
    p.ring_bytes = warps * copies.depth * copies.tiles * s.tile_bytes;
    p.shared_bytes = p.ring_bytes + p.sum_bytes + s.activation_bytes;
    return p;
}

}  // namespace detail

/// The plan with the most warps whose copies fit twice into shared memory; depth 0 if none does.
///
/// In a step of one row a multiprocessor holds a block of each of two neighbouring stages, and a stage's
/// block comes when one of the stage before last has gone. Where a block of the stage between may end at
/// once, for want of work, a second block could take its place, and another multiprocessor would have none:
/// such a stage (`crowds`) takes a little more than half of the shared memory, which its neighbours leave
/// over.
GG_HD constexpr MatvecPlan plan_matvec(const MatvecShape& shape, const Chip& chip) {
    MatvecPlan plan{};
    for (int warps = 16; warps >= 4 && plan.depth < 2; warps /= 2)
        plan = detail::plan_with_warps(shape, chip, warps);
    if (plan.depth < 2) plan.depth = 0;
    if (shape.rows == 1 && plan.blocks <= chip.multiprocessors && plan.ring_bytes > (8 << 20) / plan.blocks)
        plan.pause = 1600;
    if (shape.crowds && shape.rows == 1) plan.shared_bytes = chip.shared_half + 16;
    return plan;
}

}  // namespace gg::cuda
