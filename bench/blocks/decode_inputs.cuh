// What the fused stages of decoding are measured on: a random residual stream, norm, biases and router, the
// same in double, and the stages' types for gpt-oss-20b with Q8_0 attention and head and MXFP4 experts.
#pragma once

#include "data.hpp"
#include "gg/cuda/down_stage.cuh"
#include "gg/cuda/head_stage.cuh"
#include "gg/cuda/launch.hpp"
#include "gg/cuda/output_stage.cuh"
#include "gg/cuda/qkv_stage.cuh"
#include "gg/cuda/up_stage.cuh"
#include "gpt_oss.hpp"
#include "timing.hpp"

namespace gg::bench {

/// The place of an element in a message.
inline std::string element(const char* what, int n, int i) {
    return std::string(what) + ", row " + std::to_string(n) + ", element " + std::to_string(i);
}

template <int rows>
struct DecodeStages {
    using Feed = cuda::FeedForward<OssExperts, Oss>;
    using Dense = format::Q8_0;
    using Sparse = format::MXFP4;
    static constexpr int hidden = Oss::hidden, mixed_width = Oss::heads * Oss::head_dim,
                         used = Oss::experts_used;
    static constexpr int slots =
        cuda::largest(1, cuda::OutputShape<Oss, Dense, rows, Oss::experts>::plan.slots,
                      cuda::DownShape<Oss, Feed, Sparse, rows, 0>::plan.slots);
    using Qkv = cuda::QkvStage<Oss, OssNorm, Dense, rows, slots>;
    using Output = cuda::OutputStage<Oss, Dense, rows, slots, Oss::experts>;
    using Up = cuda::UpStage<Oss, OssNorm, OssExperts, Sparse, cuda::HalfOperand, rows, slots>;
    using Down = cuda::DownStage<Oss, OssExperts, Sparse, rows, slots, 0>;
    using Head = cuda::HeadStage<Oss, OssNorm, Dense, rows, slots>;
    using Chosen = cuda::Choice<rows, used, Feed::most(rows)>;
};

template <int rows>
struct DecodeInputs {
    static constexpr int hidden = Oss::hidden, slots = DecodeStages<rows>::slots;

    cuda::DeviceBuffer<float> x, gain, bias, router;
    cuda::DeviceBuffer<int> overflows;
    std::vector<double> host_x;  ///< [rows][hidden]
    std::vector<float> host_gain, host_bias;

    DecodeInputs()
        : x(random_floats(size(slots, rows, hidden), -1.0f, 1.0f, 1)),
          gain(random_floats(hidden, 0.5f, 1.5f, 2)),
          bias(random_floats(size(Oss::experts, 2 * hidden), -0.3f, 0.3f, 3)),
          router(random_floats(size(hidden, Oss::experts), -0.1f, 0.1f, 4)),
          overflows(buffer<int>(1)),
          host_x(sum_slots(read(x.data(), x.size()), slots, hidden)),
          host_gain(read(gain.data(), hidden)),
          host_bias(read(bias.data(), bias.size())) {}

    cuda::ResidualStream stream_of_x() const { return {x.data(), slots}; }
    OssNorm::Weights<cuda::CudaStore> norm() const {
        OssNorm::Weights<cuda::CudaStore> w{};
        w.gain.data = gain.data();
        return w;
    }

    /// [rows][width] in double from partial sums [slots][rows][width].
    static std::vector<double> sum_slots(const std::vector<float>& parts, int slot_count, int width) {
        std::vector<double> sums(size(rows, width));
        for (std::size_t i = 0; i < parts.size() && i < size(slot_count, rows, width); ++i)
            sums[i % sums.size()] += static_cast<double>(parts[i]);
        return sums;
    }
    /// The factor of the norm of row n, and the normed row.
    double scale(int n) const {
        double squares = 0;
        for (int i = 0; i < hidden; ++i)
            squares += host_x[size(n * hidden + i)] * host_x[size(n * hidden + i)];
        return 1 / std::sqrt(squares / hidden + static_cast<double>(Oss::norm_epsilon));
    }
    std::vector<double> normed(int n) const {
        std::vector<double> y(hidden);
        const double s = scale(n);
        for (int i = 0; i < hidden; ++i)
            y[size(i)] = host_x[size(n * hidden + i)] * s * static_cast<double>(host_gain[size(i)]);
        return y;
    }
    /// What a product of a normed row, rounded to FP16, may miss by.
    static double normed_bound(const Dot& sum) {
        return product_bound(sum, hidden) + 0x1p-11 * sum.magnitude;
    }
};

}  // namespace gg::bench
