// What rearranging weights into tiles (repack.cuh) is told, and where each lane of a warp finds its 32
// elements. Includes nothing from the system.
//
// Lane l of the warp that makes a tile decodes half l % 2 (32 columns) of tile row l / 2. Plain: row r of row
// tile i is the matrix's row 16 i + r. Interleaved: rows 0-7 of row tile i are rows 8i .. 8i + 7 of source 0,
// rows 8-15 the same rows of source 1.
#pragma once

#include "gg/core/device.hpp"

namespace gg::cuda {

/// Rows as they lie in the file, at any address.
struct RepackSource {
    const unsigned char* rows;
    unsigned long long row_bytes;
    int type;  ///< the id that GGUF gives the element type
};

/// Matrices one behind the other, in each source and in the tiles.
struct RepackArgs {
    RepackSource sources[2];  ///< the second only if interleaved
    unsigned char* tiles;     ///< aligned to 16 bytes
    int* faults;              ///< [sources], counts of what the format cannot hold; added to
    int matrices;
    int rows;  ///< of one matrix of one source
    int columns;
    bool interleaved;
    /// [matrices][row tiles][16], zero before: each row's unit (warpgroup_tile.cuh); null: none.
    unsigned char* row_units = nullptr;
};

inline constexpr int repack_threads = 128;

/// Rows of a source in one tile.
GG_HD constexpr int repack_tile_rows(bool interleaved) {
    return interleaved ? 8 : 16;
}
/// Tiles of one matrix, downwards and across.
GG_HD constexpr int repack_row_tiles(const RepackArgs& args) {
    const int rows = repack_tile_rows(args.interleaved);
    return (args.rows + rows - 1) / rows;
}
GG_HD constexpr int repack_column_tiles(const RepackArgs& args) {
    return (args.columns + 63) / 64;
}
/// Tiles of all matrices, and the blocks that make them, a warp a tile.
GG_HD constexpr unsigned long long repack_tiles(const RepackArgs& args) {
    return static_cast<unsigned long long>(args.matrices) *
           static_cast<unsigned long long>(repack_row_tiles(args)) *
           static_cast<unsigned long long>(repack_column_tiles(args));
}
GG_HD constexpr unsigned repack_blocks(const RepackArgs& args) {
    constexpr unsigned warps = repack_threads / 32;
    return static_cast<unsigned>((repack_tiles(args) + warps - 1) / warps);
}

/// The elements of one lane.
struct RepackPlace {
    int source;
    unsigned long long row;  ///< of the source, over all matrices
    int chunk;               ///< of 32 columns
    int count;               ///< elements that are there; 0 for padding
};

GG_HD constexpr RepackPlace repack_place(const RepackArgs& args, unsigned long long tile, int lane) {
    const auto columns = static_cast<unsigned long long>(repack_column_tiles(args));
    const auto row_tiles = static_cast<unsigned long long>(repack_row_tiles(args));
    const int tile_row = lane / 2;
    const int each = repack_tile_rows(args.interleaved);
    const int row = static_cast<int>(tile / columns % row_tiles) * each + tile_row % each;
    const int chunk = 2 * static_cast<int>(tile % columns) + lane % 2;
    const int left = row < args.rows ? args.columns - 32 * chunk : 0;
    const auto matrix = tile / columns / row_tiles;
    return {tile_row / each,
            matrix * static_cast<unsigned long long>(args.rows) + static_cast<unsigned long long>(row), chunk,
            left < 0    ? 0
            : left > 32 ? 32
                        : left};
}

}  // namespace gg::cuda
