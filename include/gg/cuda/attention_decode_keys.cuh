// One warp's share of a block's keys in DecodeAttention, and the merge of a block's warps.
//
// 16 positions at a time: scores = queries x keys, values += weights x values, with 8 query heads as rows 0
// to 7 of the tensor-core product and, as rows 8 to 15, what rounding queries and weights to FP16 left over.
// Operands come from memory straight into registers, the next 16 positions while these are multiplied: a lane
// reads 16 bytes of a key, whose elements take the places in the product that the queries' have too, and 16
// bytes each of four values, whose elements belong to eight products.
// Bytes moved: keys and values once.
#pragma once

#include "gg/cuda/attention_decode_heads.cuh"

namespace gg::cuda {

/// Of a head over some keys: the largest score, the sum of weights relative to it, and two elements of the
/// values' weighted sum.
struct KeySums {
    float largest = -infinity(), sum = 0.0f;
    float2 values = {0.0f, 0.0f};

    /// Adds the sums of other keys in their order, {largest score, sum} and values each; of parts without
    /// keys the largest score is -infinity and the rest 0. Some key must be there.
    template <int count>
    GG_DEVICE void merge(const float2 (&statistics)[count], const float2 (&parts)[count]) {
        float most = largest;
#pragma unroll
        for (int i = 0; i < count; ++i) most = gg::max(most, statistics[i].x);
        const float own = exp2_fast(largest - most);
        largest = most;
        sum *= own;
        values.x *= own;
        values.y *= own;
#pragma unroll
        for (int i = 0; i < count; ++i) {
            const float factor = exp2_fast(statistics[i].x - most);
            sum = __fmaf_rn(statistics[i].y, factor, sum);
            values.x = __fmaf_rn(parts[i].x, factor, values.x);
            values.y = __fmaf_rn(parts[i].y, factor, values.y);
        }
    }
};

template <class Dims, int rows>
class DecodeKeys {
  public:
    using Shape = DecodeShape<Dims, rows>;

    static constexpr int head_dim = Shape::head_dim, stride = Shape::stride;

    GG_DEVICE DecodeKeys(const DecodeTask& task, unsigned char* shared)
        : task_(task),
          shared_(shared),
          g_(Shape::lane() / 4),
          t_(Shape::lane() % 4),
          head_tile_(Shape::warp() % Shape::head_tiles),
          stream_(Shape::warp() / Shape::head_tiles),
          step_(static_cast<unsigned>(Shape::streams * unit_keys) % positions()),
          slot_(static_cast<unsigned>((task.units.begin + stream_) * unit_keys) % positions()) {}

    /// Starts reading cached keys and values.
    GG_DEVICE void prefetch() {
        if constexpr (ahead) {
            const int unit = task_.units.begin + stream_;
            if (unit >= task_.units.end) return;
            load_keys(unit);
            load_values(unit);
        }
    }

    /// Goes through the warp's keys, after the heads were formed.
    GG_DEVICE void attend() {
        if constexpr (queries_in_registers) {
#pragma unroll
            for (int i = 0; i < 2 * Shape::steps; ++i) query_[i] = query(i);
        }
#pragma unroll 1
        for (int unit = task_.units.begin + stream_; unit < task_.units.end; unit += Shape::streams) {
            const bool fresh = (unit + 1) * unit_keys > task_.fresh;
            const bool more = unit + Shape::streams < task_.units.end;
            float x[2][4] = {};
            if constexpr (!ahead) load_keys(unit);
            if (fresh) take_fresh_keys(unit);
            score(x);
            if constexpr (ahead) {
                next_slot();
                if (more) load_keys(unit + Shape::streams);
            }
            unsigned p[4];
            weigh(x, unit, p);
            if constexpr (!ahead) {
                load_values(unit);
                next_slot();
            }
            if (fresh) take_fresh_values(unit);
            add_values(p);
            if constexpr (ahead)
                if (more) load_values(unit + Shape::streams);
        }
    }

    /// Leaves the warp's sums in shared memory, relative to its largest scores.
    GG_DEVICE void leave_sums() {
        if constexpr (!Shape::sums_apart) __syncthreads();  // queries and new keys were read
        sum_ += __shfl_xor_sync(whole_warp, sum_, 1);
        sum_ += __shfl_xor_sync(whole_warp, sum_, 2);
        const int at = left_at(head_tile_ * 8 + g_, stream_);
        if (t_ == 0) statistics()[at] = {largest_, sum_};
        float* const row = sums() + at * Shape::value_pitch + 16 * t_;
#pragma unroll
        for (int u = 0; u < Shape::spans; ++u)
#pragma unroll
            for (int e = 0; e < 2; ++e)
#pragma unroll
                for (int j = 0; j < 8; j += 4) {
                    float4 four;
                    four.x = out_[8 * u + j][e] + out_[8 * u + j][e + 2];
                    four.y = out_[8 * u + j + 1][e] + out_[8 * u + j + 1][e + 2];
                    four.z = out_[8 * u + j + 2][e] + out_[8 * u + j + 2][e + 2];
                    four.w = out_[8 * u + j + 3][e] + out_[8 * u + j + 3][e + 2];
                    *reinterpret_cast<float4*>(row + 64 * u + 8 * e + j) = four;
                }
    }

    /// A head's sums over the block's streams, elements d (even) and d + 1, after all warps left theirs.
    GG_DEVICE KeySums block_sums(int head, int d) const {
        float2 left[Shape::streams], parts[Shape::streams];
#pragma unroll
        for (int s = 0; s < Shape::streams; ++s) {
            const int at = left_at(head, s);
            left[s] = statistics()[at];
            parts[s] = *reinterpret_cast<const float2*>(sums() + at * Shape::value_pitch + d);
        }
        KeySums all;
        all.merge(left, parts);
        return all;
    }

  private:
    static constexpr bool ahead = Shape::spans <= 2;  ///< wider heads leave no registers for it
    static constexpr bool queries_in_registers = Shape::steps <= 2;

    const DecodeTask& task_;
    unsigned char* const shared_;
    const int g_, t_;               ///< lane 4g + t
    const int head_tile_, stream_;  ///< of the warp
    const unsigned step_;           ///< from a unit's slot to that of the warp's next, modulo the ring
    unsigned slot_;                 ///< where the unit to be read next lies
    uint4 k_[2][Shape::steps];      ///< positions g and 8 + g, elements 32s + 8t to 32s + 8t + 7
    uint4 v_[4][Shape::spans];  ///< positions 2t, 2t + 1, 2t + 8, 2t + 9, elements 64u + 8g to 64u + 8g + 7
    uint4 query_[queries_in_registers ? 2 * Shape::steps : 1];
    float out_[8 * Shape::spans][4] = {};  ///< of head g: elements 64u + 16t + {0, 8} + j in [8u + j][0, 1]
    float largest_ = -infinity(), sum_ = 0.0f;  ///< of head g; the sum of this lane's keys only

    /// Operand i of the head tile's queries: step i / 2, elements 8t + 4 (i % 2) to 8t + 4 (i % 2) + 3.
    GG_DEVICE uint4 query(int i) const {
        const float* const row =
            reinterpret_cast<const float*>(shared_) + (head_tile_ * 8 + g_) * Shape::query_pitch;
        return *reinterpret_cast<const uint4*>(row + i / 2 * 32 + 8 * t_ + i % 2 * 4);
    }

    GG_DEVICE unsigned positions() const {
        return static_cast<unsigned>(task_.cache.positions);
    }
    GG_DEVICE void next_slot() {
        slot_ += step_;
        if (slot_ >= positions()) slot_ -= positions();
    }

    /// Cached keys of a unit; those that are not cached or not seen become 0.
    GG_DEVICE void load_keys(int unit) {
        const unsigned short* const from = task_.cache.keys + (Size(slot_) + g_) * stride + 8 * t_;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int position = unit * unit_keys + 8 * i + g_;
            const bool valid = position >= task_.visible && position < task_.fresh;
#pragma unroll
            for (int s = 0; s < Shape::steps; ++s) {
                k_[i][s] = uint4{0, 0, 0, 0};
                if (valid && t_ + 4 * s < Shape::chunks)
                    k_[i][s] = load_cg(reinterpret_cast<const uint4*>(from + 8 * i * stride + 32 * s));
            }
        }
    }

    GG_DEVICE void load_values(int unit) {
        const unsigned short* const from = task_.cache.values + (Size(slot_) + 2 * t_) * stride + 8 * g_;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int key = i / 2 * 8 + i % 2, position = unit * unit_keys + 2 * t_ + key;
            const bool valid = position >= task_.visible && position < task_.fresh;
#pragma unroll
            for (int u = 0; u < Shape::spans; ++u) {
                v_[i][u] = uint4{0, 0, 0, 0};
                if (valid && g_ + 8 * u < Shape::chunks)
                    v_[i][u] = load_cg(reinterpret_cast<const uint4*>(from + key * stride + 64 * u));
            }
        }
    }

    /// The new key (0) or value (1) of a position, in shared memory.
    GG_DEVICE const unsigned short* fresh_row(int position, int is_value) const {
        return reinterpret_cast<const unsigned short*>(shared_ + Shape::fresh_at) +
               (2 * (position - task_.fresh) + is_value) * stride;
    }

    GG_DEVICE void take_fresh_keys(int unit) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int position = unit * unit_keys + 8 * i + g_;
            if (position < task_.fresh || position > task_.position) continue;
#pragma unroll
            for (int s = 0; s < Shape::steps; ++s)
                if (t_ + 4 * s < Shape::chunks)
                    k_[i][s] = *reinterpret_cast<const uint4*>(fresh_row(position, 0) + 8 * t_ + 32 * s);
        }
    }

    GG_DEVICE void take_fresh_values(int unit) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int position = unit * unit_keys + 2 * t_ + i / 2 * 8 + i % 2;
            if (position < task_.fresh || position > task_.position) continue;
#pragma unroll
            for (int u = 0; u < Shape::spans; ++u)
                if (g_ + 8 * u < Shape::chunks)
                    v_[i][u] = *reinterpret_cast<const uint4*>(fresh_row(position, 1) + 8 * g_ + 64 * u);
        }
    }

    /// Scores of keys 8i + 2t, + 1 in x[i][0], [1]: the parts of the queries' low parts in [2], [3].
    GG_DEVICE void score(float (&x)[2][4]) const {
#pragma unroll
        for (int s = 0; s < Shape::steps; ++s) {
            uint4 a, b;
            if constexpr (queries_in_registers)
                a = query_[2 * s], b = query_[2 * s + 1];
            else
                a = query(2 * s), b = query(2 * s + 1);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                multiply_half(x[i], a.x, a.y, a.z, a.w, k_[i][s].x, k_[i][s].y);
                multiply_half(x[i], b.x, b.y, b.z, b.w, k_[i][s].z, k_[i][s].w);
            }
        }
    }

    /// Scores become weights, as operand: high and low parts of keys 2t, 2t + 1, then of 2t + 8, 2t + 9.
    GG_DEVICE void weigh(const float (&x)[2][4], int unit, unsigned (&p)[4]) {
        const float scale = log2_e / gg::sqrt(static_cast<float>(head_dim));
        float y[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int position = unit * unit_keys + i / 2 * 8 + 2 * t_ + i % 2;
            const bool seen = position >= task_.visible && position <= task_.position;
            y[i] = seen ? x[i / 2][i % 2] + x[i / 2][i % 2 + 2] : -infinity();
        }
        float most = gg::max(gg::max(y[0], y[1]), gg::max(y[2], y[3]));
        most = gg::max(most, __shfl_xor_sync(whole_warp, most, 1));
        most = gg::max(most, __shfl_xor_sync(whole_warp, most, 2));
        const float largest = gg::max(largest_, most * scale);
        const float factor = exp2_fast(largest_ - largest), offset = weight_exponent - largest;
        const bool rescale = largest_ != -infinity() && factor != 1.0f;  // the first sums are 0
        largest_ = largest;
#pragma unroll
        for (int i = 0; i < 4; ++i) y[i] = exp2_fast(__fmaf_rn(y[i], scale, offset));
        sum_ = __fmaf_rn(sum_, factor, (y[0] + y[1]) + (y[2] + y[3]));
        if (__any_sync(whole_warp, rescale)) {
#pragma unroll
            for (int n = 0; n < 8 * Shape::spans; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) out_[n][i] *= factor;
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const unsigned high = pack_half(y[2 * i], y[2 * i + 1]);
            p[2 * i] = high;
            p[2 * i + 1] = pack_half(y[2 * i] - low_half_value(high), y[2 * i + 1] - high_half_value(high));
        }
    }

    GG_DEVICE void add_values(const unsigned (&p)[4]) {
#pragma unroll
        for (int u = 0; u < Shape::spans; ++u) {
            const unsigned w[4][4] = {{v_[0][u].x, v_[0][u].y, v_[0][u].z, v_[0][u].w},
                                      {v_[1][u].x, v_[1][u].y, v_[1][u].z, v_[1][u].w},
                                      {v_[2][u].x, v_[2][u].y, v_[2][u].z, v_[2][u].w},
                                      {v_[3][u].x, v_[3][u].y, v_[3][u].z, v_[3][u].w}};
#pragma unroll
            for (int j = 0; j < 8; j += 2) {
                multiply_half(out_[8 * u + j], p[0], p[1], p[2], p[3],
                              pair_halves<false>(w[0][j / 2], w[1][j / 2]),
                              pair_halves<false>(w[2][j / 2], w[3][j / 2]));
                multiply_half(out_[8 * u + j + 1], p[0], p[1], p[2], p[3],
                              pair_halves<true>(w[0][j / 2], w[1][j / 2]),
                              pair_halves<true>(w[2][j / 2], w[3][j / 2]));
            }
        }
    }

    GG_DEVICE float2* statistics() const {
        return reinterpret_cast<float2*>(shared_ + Shape::statistics_at);
    }
    GG_DEVICE float* sums() const {
        return reinterpret_cast<float*>(shared_ + Shape::sums_at);
    }
    /// Where the statistics and the row of sums of a head are that a stream left.
    GG_DEVICE static int left_at(int head, int stream) {
        return (stream * Shape::head_tiles + head / 8) * 8 + head % 8;
    }
};

}  // namespace gg::cuda
