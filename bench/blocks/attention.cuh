// What both kinds of attention share here: gpt-oss-20b's heads, random caches, and the reference in double.
#pragma once

#include "data.hpp"
#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/store.hpp"
#include "gg/format/floats.hpp"
#include "gpt_oss.hpp"
#include "timing.hpp"

namespace gg::bench {

inline constexpr int position_bytes = 2 * Oss::kv_heads * Oss::head_dim * 2;  ///< of keys and values
using HeadBits = std::vector<unsigned short>;

/// Rotary tables [rows][head_dim / 2] of random angles.
struct Rotations {
    std::vector<float> cosines, sines;
    cuda::DeviceBuffer<float> device_cosines, device_sines;

    explicit Rotations(int rows) {
        constexpr int half = Oss::head_dim / 2;
        for (std::size_t i = 0; i < size(rows, half); ++i) {
            const double angle = static_cast<double>(i % 1009) * 0.37;
            cosines.push_back(static_cast<float>(std::cos(angle)));
            sines.push_back(static_cast<float>(std::sin(angle)));
        }
        device_cosines = buffer(cosines);
        device_sines = buffer(sines);
    }
    HeadPlace place(int row) const {
        return {0, false, cosines.data() + size(row, Oss::head_dim / 2),
                sines.data() + size(row, Oss::head_dim / 2)};
    }
};

struct SinkWeights {
    using Weights = OssAttention::Weights<cuda::CudaStore>;
    cuda::DeviceBuffer<float> sinks = random_floats(Oss::heads, -2.0f, 2.0f, 40);
    std::vector<float> host = read(sinks.data(), Oss::heads);

    Weights weights() const {
        Weights w{};
        w.sink.data = sinks.data();
        return w;
    }
};

/// A head of q, k or v after the policies, from its part of the product.
inline std::vector<float> rotated_head(const double* x, const HeadPlace& place) {
    std::vector<float> head(Oss::head_dim);
    for (std::size_t i = 0; i < head.size(); ++i) head[i] = static_cast<float>(x[i]);
    OssAttention::Weights<cuda::CudaStore> none{};
    OssAttention::transform(none, Oss{}, place, head.data());
    return head;
}
inline std::vector<float> half_head(const unsigned short* bits) {
    std::vector<float> head;
    for (int i = 0; i < Oss::head_dim; ++i) head.push_back(format::half_to_float(bits[i]));
    return head;
}

/// Attention of one query over keys first .. last, key(j) and value(j) as their floats: each element and the
/// sum of its terms' magnitudes.
template <class Key, class Value>
std::vector<Dot> attend(const std::vector<float>& query, double sink, int first, int last, const Key& key,
                        const Value& value) {
    std::vector<double> scores;
    double largest = sink;
    for (int j = first; j <= last; ++j) {
        scores.push_back(dot(query, key(j).data()).value / std::sqrt(double{Oss::head_dim}));
        largest = std::max(largest, scores.back());
    }
    double sum = std::exp(sink - largest);
    std::vector<Dot> out(Oss::head_dim);
    for (int j = first; j <= last; ++j) {
        const double p = std::exp(scores[size(j - first)] - largest);
        const std::vector<float> v = value(j);
        sum += p;
        for (std::size_t i = 0; i < out.size(); ++i) {
            out[i].value += p * static_cast<double>(v[i]);
            out[i].magnitude += p * std::fabs(static_cast<double>(v[i]));
        }
    }
    for (Dot& d : out) d = {d.value / sum, d.magnitude / sum};
    return out;
}

}  // namespace gg::bench
