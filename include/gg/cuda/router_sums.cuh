// The router's logits as sums over blocks (output_stage.cuh says why): what a stage that writes the residual
// leaves, and what the stage that routes makes of it.
//
//   left by block c   partial[c][row][e] = sum over the block's rows i of its part of x_i * gain_i * W_ei
//   logit_e           = scale * sum over c of partial[c][row][e] + bias_e
//
// Sums run in a fixed order: a block's rows in a few contiguous parts, parts in order, then blocks in order.
#pragma once

#include "gg/cuda/partial_sums.cuh"

namespace gg::cuda {

template <class Dims, class Shape, int experts>
struct RouterSums {
    static constexpr MatvecPlan plan = Shape::plan;
    static constexpr int local_rows = plan.round_rows * tile_rows;
    static constexpr int sums = Shape::rows * (experts > 0 ? experts : 1);
    static constexpr int parts = sum_parts(plan.threads(), sums);
    static_assert(router_bytes(plan, Shape::rows, experts) <= Shape::shape.activation_bytes);

    float* values;

    GG_DEVICE explicit RouterSums(float* memory) : values(memory) {}

    struct Keep {
        float* values;
        int first;
        GG_DEVICE void operator()(int row, int n, float value) const {
            if constexpr (experts > 0) values[(row - first) * Shape::rows + n] = value;
        }
    };
    GG_DEVICE Keep keep(int first_row_tile) const { return {values, first_row_tile * tile_rows}; }

    /// All threads of the block call it after the values were kept. `router` is [hidden][experts].
    GG_DEVICE void add_up(const float* router, float* out, int used_rows, int first_row,
                          int row_count) const {
        if constexpr (experts > 0) {
            __syncthreads();
            float* partial = values + local_rows * Shape::rows;
            const int begin = first_row * tile_rows, rest = Dims::hidden - begin;
            const int count = row_count * tile_rows < rest ? row_count * tile_rows : rest;
            for (int i = static_cast<int>(threadIdx.x); i < parts * sums; i += plan.threads()) {
                const int part = i / sums, n = i % sums / experts, e = i % experts;
                float sum = 0.0f;
                if (n < used_rows) {
                    const int to = share_begin(count, part + 1, parts);
#pragma unroll 4
                    for (int k = share_begin(count, part, parts); k < to; ++k)
                        sum += values[k * Shape::rows + n] * router[Size(begin + k) * experts + e];
                }
                partial[i] = sum;
            }
            __syncthreads();
            for (int i = static_cast<int>(threadIdx.x); i < used_rows * experts; i += plan.threads()) {
                float sum = 0.0f;
                for (int part = 0; part < parts; ++part) sum += partial[part * sums + i];
                out[Size(blockIdx.x) * sums + i] = sum;
            }
        }
    }
};

}  // namespace gg::cuda
