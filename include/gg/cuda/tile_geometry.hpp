// Sizes of tiles (tile.cuh) and of the activations that are multiplied with them (operand.cuh), the same for
// host and device.
#pragma once

#include "gg/core/device.hpp"

namespace gg::cuda {

inline constexpr int tile_rows = 16;
inline constexpr int tile_columns = 64;

/// Tiles that cover `rows` or `columns`.
GG_HD constexpr int row_tiles(int rows) {
    return (rows + tile_rows - 1) / tile_rows;
}
GG_HD constexpr int column_tiles(int columns) {
    return (columns + tile_columns - 1) / tile_columns;
}

/// How many elements a row of `width` activations takes: whole columns of tiles.
GG_HD constexpr int operand_stride(int width) {
    return column_tiles(width) * tile_columns;
}

}  // namespace gg::cuda
