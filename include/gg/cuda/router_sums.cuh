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
class RouterSums {
  public:
    static constexpr MatvecPlan plan = Shape::plan;
    static constexpr int local_rows = plan.round_rows * tile_rows;
    static constexpr int sums = Shape::rows * (experts > 0 ? experts : 1);
    static constexpr int parts = sum_parts(plan.threads(), sums);
    static_assert(router_bytes(plan, Shape::rows, experts) <= Shape::shape.activation_bytes);

    static constexpr int terms = (local_rows + parts - 1) / parts;  ///< of a part, at most
    static constexpr bool ahead = experts > 0 && terms <= 12 && parts* sums <= plan.threads();

    /// Before the wait. The block's sums are of the row tiles [first_row, first_row + row_count); `router` is
    /// [hidden][experts].
    GG_DEVICE RouterSums(float* memory, const float* router, int first_row, int row_count)
        : values_(memory), router_(router), begin_(first_row * tile_rows) {
        if constexpr (experts == 0) return;
        const int rest = Dims::hidden - begin_;
        count_ = row_count * tile_rows < rest ? row_count * tile_rows : rest;
        constexpr int line = 32;  // floats
        for (int i = static_cast<int>(threadIdx.x) * line; i < count_ * experts; i += plan.threads() * line)
            prefetch_l2(router + Size(begin_) * experts + i);
    }

    /// Before add_up, where time can be spared: reads this thread's part of the router.
    GG_DEVICE void read() {
        if constexpr (ahead) {
#pragma unroll
            for (int k = 0; k < terms; ++k) weights_[k] = weight(static_cast<int>(threadIdx.x), k);
        }
    }

    struct Keep {
        float* values;
        int first;
        GG_DEVICE void operator()(int row, int n, float value) const {
            if constexpr (experts > 0) values[(row - first) * Shape::rows + n] = value;
        }
    };
    GG_DEVICE Keep keep() const {
        return {values_, begin_};
    }

    /// All threads of the block call it after the values were kept.
    GG_DEVICE void add_up(float* out, int used_rows) const {
        if constexpr (experts > 0) {
            __syncthreads();
            float* partial = values_ + local_rows * Shape::rows;
            for (int i = static_cast<int>(threadIdx.x); i < parts * sums; i += plan.threads()) {
                const int part = i / sums, n = i % sums / experts, left = count_ - part * terms;
                float sum = 0.0f;
                if (n < used_rows)
#pragma unroll
                    for (int k = 0; k < terms; ++k)
                        if (k < left)
                            sum += values_[(part * terms + k) * Shape::rows + n] *
                                   (ahead ? weights_[k] : weight(i, k));
                partial[i] = sum;
            }
            __syncthreads();
            for (int i = static_cast<int>(threadIdx.x); i < used_rows * experts; i += plan.threads()) {
                float sum = 0.0f;
#pragma unroll
                for (int part = 0; part < parts; ++part) sum += partial[part * sums + i];
                out[Size(blockIdx.x) * sums + i] = sum;
            }
        }
    }

  private:
    float* values_;
    const float* router_;
    int begin_, count_ = 0;
    float weights_[ahead ? terms : 1];

    /// Of term k of partial sum i.
    GG_DEVICE float weight(int i, int k) const {
        const int part = i / sums, e = i % (experts > 0 ? experts : 1), row = part * terms + k;
        return part < parts && row < count_ ? router_[Size(begin_ + row) * experts + e] : 0.0f;
    }
};

/// What becomes of the sums of a stage that writes the residual (Matvec::run).
template <class Sums, class Router>
struct ResidualFinish {
    const Sums& sums;
    Router& router;
    float *out, *router_out;
    int used_rows;

    GG_DEVICE void ready(int, int) { router.read(); }
    template <class Sum>
    GG_DEVICE void operator()(int, int, const Sum& sum) const {
        sums.store(out, sum, router.keep());
        router.add_up(router_out, used_rows);
    }
};

}  // namespace gg::cuda
