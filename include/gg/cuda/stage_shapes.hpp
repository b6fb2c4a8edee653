// The products of a decoding step that leave partial sums, in numbers: what plan.hpp is asked. The kernels
// and the host, which plans memory before there are kernels, take them from here. Includes nothing from the
// system.
#pragma once

#include "gg/cuda/plan.hpp"
#include "gg/cuda/tile_geometry.hpp"

namespace gg::cuda {

/// Normed activations in shared memory: 16-bit floats from one row to the next, and bytes of all rows.
/// Several rows begin in different banks.
GG_HD constexpr int shared_stride(int rows, int width) {
    return operand_stride(width) + (rows > 1 ? 32 : 0);
}
GG_HD constexpr int shared_activation_bytes(int planes, int rows, int width) {
    return planes * rows * shared_stride(rows, width) * 2;
}

/// Threads that share one sum over many terms: as many parts as threads allow, at most 16.
GG_HD constexpr int sum_parts(int threads, int sums) {
    const int parts = threads / sums;
    return parts < 1 ? 1 : parts > 16 ? 16 : parts;
}

/// Shared memory of RouterSums for a plan: the block's part of x [local rows][rows], then sums in parts.
GG_HD constexpr int router_bytes(const MatvecPlan& plan, int rows, int experts) {
    if (experts == 0) return 0;
    return (plan.round_rows * tile_rows * rows + sum_parts(plan.threads(), rows * experts) * rows * experts) *
           4;
}

/// The shape with room for the sums of a router that comes next, which take the place of activations that
/// were copied.
GG_HD constexpr MatvecShape with_router(MatvecShape shape, const Chip& chip, int experts) {
    const int bytes = router_bytes(plan_matvec(shape, chip), shape.rows, experts);
    if (shape.activation_bytes < bytes) shape.activation_bytes = bytes;
    return shape;
}

/// Experts that `rows` rows may use together; 1 without experts.
GG_HD constexpr int most_experts(int rows, int used, int experts) {
    if (experts == 0) return 1;
    return rows * used < experts ? rows * used : experts;
}

/// First product of attention, of normed rows: `width` as qkv_columns has it, `planes` of an activation.
GG_HD constexpr MatvecShape qkv_shape(int rows, int hidden, int width, int tile_bytes, int planes) {
    return {rows,
            width / tile_rows,
            column_tiles(hidden),
            tile_bytes,
            false,
            shared_activation_bytes(planes, rows, hidden)};
}

/// Shared memory into which a stage of one row copies its activations, `matrices` operands of `width` side by
/// side; 0 where they are read from device memory tile by tile: those of several rows, and wide ones.
GG_HD constexpr int copied_activation_bytes(int planes, int rows, int width, int matrices) {
    const int bytes = planes * matrices * operand_stride(width) * 2;
    return rows == 1 && bytes <= 24 * 1024 ? bytes : 0;
}

/// Last product of a branch, which is added to the residual: `matrices` (the experts of a step) of `width`
/// columns side by side. `next_experts`: those that the next residual routes to, 0 for none.
GG_HD constexpr MatvecShape residual_shape(int rows, int hidden, int width, int matrices, int tile_bytes,
                                           int planes, const Chip& chip, int next_experts,
                                           bool after_attention = false) {
    return with_router(MatvecShape{rows, row_tiles(hidden), column_tiles(width) * matrices, tile_bytes, false,
                                   copied_activation_bytes(planes, rows, width, matrices), after_attention},
                       chip, next_experts);
}

}  // namespace gg::cuda
