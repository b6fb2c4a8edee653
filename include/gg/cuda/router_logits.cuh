// The logits of routing many rows, of one block of `rows` rows: W Norm(x) + bias in FP32 throughout.
//
// A block takes 4, 16 or 32 rows and 32 experts at a time. Its 8 warps share the columns, 16 of each 128, and
// each brings its own columns of weights and rows to shared memory, some stages ahead, so that no warp waits
// for another before the end. A lane sums 4 experts x rows / 4. Rows there are 20 floats long, so that 8
// lanes that read 16 bytes of 8 neighbouring rows meet all banks.
//
//   partial[w][row][e] = sum over the columns i of warp w, in order, of y_i W_ei
//   logit_e            = s * sum over w, in order, of partial[w][row][e] + bias_e
//
// A norm without a mean only scales a row: y is the row with the gain alone, s its factor, from squares that
// are summed on the way, so that x is read once. Otherwise y = Norm(x), s = 1, and statistics come first. The
// order of no sum depends on how many rows a block has.
//
// Bytes moved: x once for 32 experts (twice or more if centred), and from the second-level cache W once a
// block.
#pragma once

#include "gg/block/router.hpp"
#include "gg/cuda/copies.cuh"
#include "gg/cuda/norm_rows.cuh"

namespace gg::cuda {

namespace detail {

/// The logits of a block of `rows` rows.
template <class Norm, class Dims, int rows>
class RouterLogits {
  public:
    using Args = RouterArgs<Norm>;

    /// `shared` as router_shared_bytes() has it.
    GG_DEVICE RouterLogits(const Args& args, float* shared)
        : args_(args),
          first_row_(static_cast<int>(blockIdx.x) * rows),
          warp_(static_cast<int>(threadIdx.x) / warp_size),
          lane_(static_cast<int>(threadIdx.x) % warp_size),
          stages_(shared),
          statistics_(shared + stage_count * warps * stage_floats),
          logits_(statistics_ + warps * rows) {}

    /// All logits [rows][experts], by all threads; ends with a barrier.
    GG_DEVICE const float* run() {
        float mean[row_chunks], scale[row_chunks];
        prepare(mean, scale);
        for (int first = 0; first < experts; first += router_experts) {
            float sums[4][lane_rows] = {};  // [expert lane % 8 + 8 i][row lane / 8 + 4 j]
            float squares[row_chunks] = {};
            add_up(first, mean, scale, sums, squares);
            __syncthreads();
            leave(sums, squares);
            __syncthreads();
            finish(first);
            __syncthreads();
        }
        return logits_;
    }

  private:
    using Element = typename Norm::Element;

    static constexpr int hidden = Dims::hidden, experts = Dims::experts;
    static constexpr int warps = router_threads / warp_size, pitch = router_pitch;
    static constexpr int stage_count = router_stages(rows, experts);
    static constexpr int stage_floats = (router_experts + rows) * pitch;  ///< of one warp: experts, then rows
    static constexpr int lane_rows = rows / 4;                            ///< whose sums a lane has
    static constexpr int row_chunks = (rows + 7) / 8;                     ///< of 4 columns that a lane brings
    static constexpr int columns = (hidden + router_columns - 1) / router_columns;  ///< in sixteens
    static constexpr int partial_pitch = router_experts + 8;  ///< lanes of 4 rows meet all banks
    static_assert(router_columns == 16 && router_experts == 32 && rows % 4 == 0 && stage_count >= 2);
    static_assert(warps * rows * partial_pitch <= stage_count * warps * stage_floats);

    const Args& args_;
    int first_row_, warp_, lane_;
    float *stages_, *statistics_, *logits_;

    /// What the rows of this lane's chunks are normed with.
    GG_DEVICE void prepare(float (&mean)[row_chunks], float (&scale)[row_chunks]) const {
        if constexpr (Norm::centred) {
            for (int r = warp_; r < rows; r += warps) {
                RowStatistics s{0.0f, 0.0f};
                if (first_row_ + r < args_.rows)
                    s = row_statistics<Norm, hidden>(RowInMemory{row(r)}, Dims::norm_epsilon);
                if (lane_ == 0) {
                    statistics_[2 * r] = s.mean;
                    statistics_[2 * r + 1] = s.scale;
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < row_chunks; ++i) {
            const int r = lane_ / 4 + 8 * i;
            mean[i] = Norm::centred && r < rows ? statistics_[2 * r] : 0.0f;
            scale[i] = Norm::centred && r < rows ? statistics_[2 * r + 1] : 1.0f;
        }
    }

    GG_DEVICE const float* row(int r) const {
        return args_.x + static_cast<Size>(first_row_ + r) * hidden;
    }

    /// The first of this lane's 4 columns in round t.
    GG_DEVICE int column(int t) const {
        return router_columns * (warp_ + warps * t) + 4 * (lane_ % 4);
    }

    GG_DEVICE float* stage(int t) const {
        return stages_ + (t % stage_count * warps + warp_) * stage_floats;
    }

    /// Brings 4 columns of a row, 0 where there are none.
    GG_DEVICE static void bring(float* to, const float* from, int c, bool exists) {
        if constexpr (hidden % 4 == 0) {
            const bool valid = exists && c < hidden;
            copy_async_16_or_zero(to, valid ? from + c : from, valid);
        } else {
#pragma unroll
            for (int k = 0; k < 4; ++k) to[k] = exists && c + k < hidden ? load_cg(from + c + k) : 0.0f;
        }
    }

    /// Brings the columns of round t.
    GG_DEVICE void bring(int first_expert, int t) const {
        float* const to = stage(t) + lane_ / 4 * pitch + 4 * (lane_ % 4);
        const int c = column(t);
#pragma unroll
        for (int i = 0; i < router_experts / 8; ++i) {
            const int e = first_expert + lane_ / 4 + 8 * i;
            const bool exists = e < experts;
            bring(to + 8 * i * pitch, args_.router + static_cast<Size>(exists ? e : 0) * hidden, c, exists);
        }
#pragma unroll
        for (int i = 0; i < row_chunks; ++i) {
            const int r = lane_ / 4 + 8 * i;
            const bool exists = first_row_ + r < args_.rows;
            if (r < rows) bring(to + (router_experts + 8 * i) * pitch, exists ? row(r) : args_.x, c, exists);
        }
    }

    /// The norm's weights of this lane's columns in round t.
    GG_DEVICE void read_elements(int t, Element (&elements)[4]) const {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int c = column(t) + k;
            elements[k] = Norm::element(args_.norm, c < hidden ? c : hidden - 1);
        }
    }

    /// Norms what this lane brought of the rows in round t.
    GG_DEVICE void norm(int t, const Element (&elements)[4], const float (&mean)[row_chunks],
                        const float (&scale)[row_chunks], float (&squares)[row_chunks]) const {
        const int c = column(t);
#pragma unroll
        for (int i = 0; i < row_chunks; ++i) {
            if (rows < 8 && lane_ / 4 >= rows) break;
            float4& x = *reinterpret_cast<float4*>(stage(t) + (router_experts + lane_ / 4 + 8 * i) * pitch +
                                                   4 * (lane_ % 4));
            float4 v = x;
            const auto apply = [&](int k, float& value) {
                if constexpr (!Norm::centred) squares[i] = __fmaf_rn(value, value, squares[i]);
                value = c + k < hidden ? Norm::apply(elements[k], value, mean[i], scale[i]) : 0.0f;
            };
            apply(0, v.x);
            apply(1, v.y);
            apply(2, v.z);
            apply(3, v.w);
            x = v;
        }
    }

    /// The warp's columns, 32 experts, all rows.
    GG_DEVICE void add_up(int first_expert, const float (&mean)[row_chunks], const float (&scale)[row_chunks],
                          float (&sums)[4][lane_rows], float (&squares)[row_chunks]) const {
        const int rounds = (columns - warp_ + warps - 1) / warps;
        Element elements[4];
        read_elements(0, elements);
#pragma unroll
        for (int t = 0; t < stage_count - 1; ++t) {
            if (t < rounds) bring(first_expert, t);
            copy_async_commit();
        }
#pragma unroll 1
        for (int t = 0; t < rounds; ++t) {
            copy_async_wait<stage_count - 2>();
            norm(t, elements, mean, scale, squares);
            __syncwarp();  // all that the lanes brought is seen; the stage before was read by all
            if (t + stage_count - 1 < rounds) bring(first_expert, t + stage_count - 1);
            copy_async_commit();
            read_elements(t + 1, elements);
            multiply(stage(t), sums);
        }
        copy_async_wait<0>();
    }

    GG_DEVICE void multiply(const float* stage, float (&sums)[4][lane_rows]) const {
        const float* const weights = stage + lane_ % 8 * pitch;
        const float* const normed = stage + (router_experts + lane_ / 8) * pitch;
#pragma unroll
        for (int k = 0; k < router_columns; k += 4) {
            float4 w[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) w[i] = *reinterpret_cast<const float4*>(weights + 8 * i * pitch + k);
#pragma unroll
            for (int j = 0; j < lane_rows; ++j) {
                const float4 y = *reinterpret_cast<const float4*>(normed + 4 * j * pitch + k);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    sums[i][j] = __fmaf_rn(w[i].x, y.x, sums[i][j]);
                    sums[i][j] = __fmaf_rn(w[i].y, y.y, sums[i][j]);
                    sums[i][j] = __fmaf_rn(w[i].z, y.z, sums[i][j]);
                    sums[i][j] = __fmaf_rn(w[i].w, y.w, sums[i][j]);
                }
            }
        }
    }

    /// Leaves the warp's sums where the stages were, [warps][rows][partial_pitch], and its squares,
    /// [warps][rows].
    GG_DEVICE void leave(const float (&sums)[4][lane_rows], const float (&squares)[row_chunks]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < lane_rows; ++j)
                stages_[(warp_ * rows + lane_ / 8 + 4 * j) * partial_pitch + lane_ % 8 + 8 * i] = sums[i][j];
        if constexpr (!Norm::centred) {
#pragma unroll
            for (int i = 0; i < row_chunks; ++i) {
                float sum = squares[i];
                sum += __shfl_xor_sync(whole_warp, sum, 1);
                sum += __shfl_xor_sync(whole_warp, sum, 2);
                const int r = lane_ / 4 + 8 * i;
                if (lane_ % 4 == 0 && r < rows) statistics_[warp_ * rows + r] = sum;
            }
        }
    }

    /// The logits of 32 experts from the warps' sums.
    GG_DEVICE void finish(int first_expert) const {
        for (int n = static_cast<int>(threadIdx.x); n < rows * router_experts; n += router_threads) {
            const int r = n / router_experts, e = n % router_experts;
            if (first_expert + e >= experts) continue;
            float sum = 0.0f, squares = 0.0f;
#pragma unroll
            for (int w = 0; w < warps; ++w) sum += stages_[(w * rows + r) * partial_pitch + e];
            float scale = 1.0f;
            if constexpr (!Norm::centred) {
#pragma unroll
                for (int w = 0; w < warps; ++w) squares += statistics_[w * rows + r];
                scale = Norm::scale(squares, hidden, Dims::norm_epsilon);
            }
            logits_[r * experts + first_expert + e] =
                __fmaf_rn(scale, sum, args_.bias ? args_.bias[first_expert + e] : 0.0f);
        }
    }
};

}  // namespace detail

}  // namespace gg::cuda
