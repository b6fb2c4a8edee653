// Softmax over keys that pass in tiles, for the two rows g and g + 8 of a lane 4g + t in tensor-core sums:
//
//   m = max_j x_j,  p_j = 2^(x_j - m + 14),  out = sum_j p_j v_j / (sum_j p_j + 2^(sink log2(e) - m + 14))
//
// with x_j = score_j log2(e) / sqrt(head_dim). What is summed so far gets the factor 2^(m before - m). A tile
// of masked keys alone has the factor 1 and adds 0, exactly. Source: Milakov and Gimelshein, "Online
// normalizer calculation for softmax", 2018.
#pragma once

#include "gg/cuda/attention_primitives.cuh"

namespace gg::cuda {

/// Scores of keys that a row does not see become -infinity: key 8n + 2t + i of the tile from `base` on, rows
/// at positions row[0] and row[1].
template <int n_tiles>
GG_DEVICE void mask_scores(float (&x)[n_tiles][4], int base, const int (&row)[2], int window) {
    const int first_key = base + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int n = 0; n < n_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int key = first_key + 8 * n + i % 2;
            if (key > row[i / 2] || (window > 0 && key <= row[i / 2] - window)) x[n][i] = -infinity();
        }
}

template <int head_dim>
struct OnlineSoftmax {
    float largest[2] = {-infinity(), -infinity()};
    float sum[2] = {0.0f, 0.0f};  ///< of this lane's keys only

    /// Scores become weights; `factor` brings what was summed before to the new largest score.
    template <int n_tiles>
    GG_DEVICE void weigh(float (&x)[n_tiles][4], float (&factor)[2]) {
        const float scale = log2_e / gg::sqrt(static_cast<float>(head_dim));
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float most = -infinity();
#pragma unroll
            for (int n = 0; n < n_tiles; ++n) most = gg::max(most, gg::max(x[n][2 * h], x[n][2 * h + 1]));
            most = gg::max(most, __shfl_xor_sync(whole_warp, most, 1));
            most = gg::max(most, __shfl_xor_sync(whole_warp, most, 2));
            const float now = gg::max(largest[h], most * scale);
            const float reference = softmax_reference(now);
            factor[h] = exp2_fast(largest[h] - reference);
            const float offset = weight_exponent - reference;
            float added = 0.0f;
#pragma unroll
            for (int n = 0; n < n_tiles; ++n)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; ++i) {
                    x[n][i] = exp2_fast(__fmaf_rn(x[n][i], scale, offset));
                    added += x[n][i];
                }
            largest[h] = now;
            sum[h] = __fmaf_rn(sum[h], factor[h], added);
        }
    }

    /// What the weighted values of row `h` are multiplied by in the end; all lanes call it.
    template <bool has_sink>
    GG_DEVICE float quotient(int h, [[maybe_unused]] float sink) const {
        float total = sum[h];
        total += __shfl_xor_sync(whole_warp, total, 1);
        total += __shfl_xor_sync(whole_warp, total, 2);
        float factor = 1.0f;
        if constexpr (has_sink) {
            const float scaled = sink * log2_e, most = gg::max(largest[h], scaled);
            factor = exp2_fast(largest[h] - most);
            total = total * factor + exp2_fast(scaled - most + weight_exponent);
        }
        return factor / total;
    }
};

/// Weighted values times the factor of their row.
template <int n_tiles>
GG_DEVICE void scale_rows(float (&out)[n_tiles][4], const float (&factor)[2]) {
#pragma unroll
    for (int n = 0; n < n_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[n][i] *= factor[i / 2];
}

/// Weights as operand A of a product with 16 keys' values.
template <int n_tiles>
GG_DEVICE void pack_weights(unsigned (&a)[4], const float (&p)[n_tiles][4], int k) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
        a[i] = pack_half(p[2 * k + i / 2][i % 2 * 2], p[2 * k + i / 2][i % 2 * 2 + 1]);
}

}  // namespace gg::cuda
