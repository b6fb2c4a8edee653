// References in double for the tests of decoding's stages, which carry a bound of the device's error with
// every value.
//
// Bounds, u = 2^-24, K the product's width, x and y as in the stages' headers:
//   residual   the sum of S slots:               (S - 1) u sum |part|
//   norm       a row of N elements is summed by at least 32 threads, each N / 32 + 1 of them, then over lanes
//              and warps: (N / 32 + 40) u of the sum of magnitudes. The factor has half the relative error of
//              the mean square and 4 u for division, root and reciprocal; an element 4 u more.
//   operand    FP16 2^-11 |y|, at least 2^-25; two BF16 2^-16 |y|.
//   product    sum |w| (error of y) + (K + 32) 2^-23 sum |w y|. Products are exact; a tensor core aligns
//              16 of them and the sum so far to the largest and cuts off below float32's last bit or later:
//              each of the K loses at most 2^-23 of sum |w y|. The sums of scaled blocks, over warps and
//              over blocks, and the bias, which are rounded, are fewer than 32 + K / 32.
//   activation derivatives times errors; see `activate`.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/random_weights.hpp"
#include "gg/block/gelu.hpp"
#include "gg/block/layer_norm.hpp"
#include "gg/block/rms_norm.hpp"
#include "gg/block/swiglu.hpp"
#include "gg/cuda/plan.hpp"

namespace cuda_test {

inline constexpr double unit = 0x1p-24;  ///< roundoff of float32

/// Poison of what a stage must write.
inline constexpr float nan_float = std::numeric_limits<float>::quiet_NaN();
inline constexpr unsigned short nan_half = 0x7FA5;  ///< a NaN in FP16 and in BF16

/// Chips that plans are made for; any GPU runs them.
struct LargeChip {
    static constexpr gg::cuda::Chip chip{132, 115712, 231424};
};
struct SmallChip {
    static constexpr gg::cuda::Chip chip{4, 49152, 101376};
};

template <class ChipOf, int hidden_, int heads_, int kv_heads_, int head_dim_, int feed_forward_ = 64,
          int experts_ = 0, int experts_used_ = 0, int vocabulary_ = 16>
struct TestDims {
    static constexpr gg::cuda::Chip chip = ChipOf::chip;
    static constexpr int hidden = hidden_, heads = heads_, kv_heads = kv_heads_, head_dim = head_dim_;
    static constexpr int feed_forward = feed_forward_, expert_feed_forward = feed_forward_;
    static constexpr int experts = experts_, experts_used = experts_used_, vocabulary = vocabulary_;
    static constexpr float norm_epsilon = 1e-5f;
};

/// A number and what the device may miss it by.
struct Bounded {
    double value = 0, error = 0;
};
using BoundedRow = std::vector<Bounded>;

/// A row of the residual stream [slots][rows][hidden].
inline BoundedRow residual_row(const std::vector<float>& parts, int slots, int rows, int hidden, int row) {
    BoundedRow x(static_cast<std::size_t>(hidden));
    for (int i = 0; i < hidden; ++i) {
        double sum = 0, magnitude = 0;
        for (int q = 0; q < slots; ++q) {
            const double part = static_cast<double>(
                parts[(static_cast<std::size_t>(q) * rows + row) * static_cast<std::size_t>(hidden) + i]);
            sum += part;
            magnitude += std::fabs(part);
        }
        x[i] = {sum, (slots - 1) * unit * magnitude};
    }
    return x;
}

/// A normed row; `scale` is the row's factor.
struct NormedRow {
    BoundedRow y;
    Bounded scale;
};

template <class Norm>
NormedRow norm_row(const BoundedRow& x, const std::vector<float>& gain, const std::vector<float>& bias,
                   double epsilon) {
    const double n = static_cast<double>(x.size()), sums = (n / 32 + 40) * unit;
    double mean = 0, mean_error = 0;
    if (Norm::centred) {
        double magnitude = 0;
        for (const Bounded& v : x) {
            mean += v.value / n;
            mean_error += v.error / n;
            magnitude += std::fabs(v.value) / n;
        }
        mean_error += sums * magnitude;
    }
    double squares = epsilon, moved = 0;
    for (const Bounded& v : x) {
        const double d = v.value - mean;
        squares += d * d / n;
        moved += 2 * std::fabs(d) * (v.error + mean_error + unit * std::fabs(d)) / n;
    }
    const double relative = 0.5 * (moved / squares + sums) + 4 * unit;
    NormedRow row;
    row.scale = {1 / std::sqrt(squares), relative / std::sqrt(squares)};
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double factor = row.scale.value * static_cast<double>(gain[i]);
        const double d = x[i].value - mean;
        const double value = d * factor + (Norm::centred ? static_cast<double>(bias[i]) : 0.0);
        const double error = std::fabs(factor) * (x[i].error + mean_error) +
                             std::fabs(d * factor) * (relative + 4 * unit) + unit * std::fabs(value);
        row.y.push_back({value, error});
    }
    return row;
}

/// Adds the rounding to an operand of so many planes.
inline void round_operand(Bounded& v, int planes) {
    const double magnitude = std::fabs(v.value) + v.error;
    v.error += planes == 1 ? std::max(0x1p-11 * magnitude, 0x1p-25) : 0x1p-16 * magnitude;
}
inline void round_operand(BoundedRow& row, int planes) {
    for (Bounded& v : row) round_operand(v, planes);
}

/// w x, added to `sum`.
inline void add_product(Bounded& sum, const float* w, const BoundedRow& x) {
    double value = 0, error = 0, magnitude = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double weight = static_cast<double>(w[i]), term = weight * x[i].value;
        value += term;
        magnitude += std::fabs(term);
        error += std::fabs(weight) * x[i].error;
    }
    sum.value += value;
    sum.error += error + (static_cast<double>(x.size()) + 32) * 2 * unit * (magnitude + error);
}
/// A number that is added in float32.
inline void add_term(Bounded& sum, Bounded term) {
    sum.value += term.value;
    sum.error += term.error + 2 * unit * (std::fabs(term.value) + std::fabs(sum.value));
}
inline Bounded product(const float* w, const BoundedRow& x, double bias = 0) {
    Bounded sum;
    add_product(sum, w, x);
    if (bias != 0) add_term(sum, {bias, 0});
    return sum;
}

/// Activations in double. Their own rounding: exp is within 2 ulp of its argument's, and an argument a x has
/// an error of u |a x|, which is a relative one of the result: (16 + 4 |x|) u covers these and the products.
inline double silu(double x) {
    return x / (1 + std::exp(-x));
}
template <class Activation>
Bounded activate(Bounded gate, Bounded up) {
    Bounded h;
    if constexpr (std::is_same_v<Activation, gg::Swiglu>) {
        const double g = silu(gate.value);
        h.value = g * up.value;
        // |silu'| <= 1.1
        h.error = 1.1 * gate.error * (std::fabs(up.value) + up.error) + std::fabs(g) * up.error;
    } else {
        static_assert(std::is_same_v<Activation, gg::ClampedSwiglu>);
        const double alpha = static_cast<double>(gg::ClampedSwiglu::alpha);
        const double x = std::min(gate.value, 7.0), u = std::clamp(up.value, -7.0, 7.0);
        const double g = silu(alpha * x) / alpha;
        h.value = g * (u + 1);
        h.error = 1.1 * gate.error * (std::fabs(u + 1) + up.error) + std::fabs(g) * up.error +
                  unit * std::fabs(g) * 16;
    }
    h.error += (16 + 4 * std::fabs(gate.value)) * unit * std::fabs(h.value);
    return h;
}
/// GeluTanh; |derivative| <= 1.13. The argument's error of 4 u |2u(x)| is the result's relative one.
inline Bounded activate_gelu(Bounded x) {
    const double v = x.value, t = std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v);
    const double value = 0.5 * v * (1 + std::tanh(t));
    return {value, 1.13 * x.error + (16 + 8 * std::fabs(t)) * unit * std::fabs(value)};
}

/// Counts values beyond their bounds.
class Misses {
  public:
    void compare(double found, const Bounded& expected, const std::string& where) {
        const double miss = std::fabs(found - expected.value);
        ++compared;
        if (miss <= expected.error) return;
        if (count++ == 0)
            first = where + ": " + std::to_string(found) + ", expected " + std::to_string(expected.value) +
                    " within " + std::to_string(expected.error);
    }
    void expect(bool right, const std::string& where) {
        ++compared;
        if (!right && count++ == 0) first = where;
    }
    long count = 0, compared = 0;
    std::string first;
};

/// "row 1, column 2".
inline std::string at(int row, int column) {
    return "row " + std::to_string(row) + ", element " + std::to_string(column);
}

/// The sum over slots of partial sums [slots][rows][width], in double.
inline double slot_sum(const std::vector<float>& parts, int slots, int rows, int width, int row, int i) {
    double sum = 0;
    for (int q = 0; q < slots; ++q)
        sum += static_cast<double>(
            parts[(static_cast<std::size_t>(q) * rows + row) * static_cast<std::size_t>(width) + i]);
    return sum;
}

/// 16-bit operands [planes][rows][stride] and their values. Only the first `used_rows` rows are random: the
/// others, which no stage may use, are NaN. Padding is zero.
struct OperandRows {
    std::vector<unsigned short> bits;
    std::vector<BoundedRow> rows;  ///< [used_rows], exact
};

/// One operand's bits of each plane.
inline double random_operand(Random& random, int planes, unsigned short (&bits)[2]) {
    if (planes == 1) {
        bits[0] = static_cast<unsigned short>(Codes<gg::format::F16>::element(random));
        return static_cast<double>(gg::format::half_to_float(bits[0]));
    }
    const int high = Codes<gg::format::BF16>::element(random);
    const int low = (random.below(2) << 15) | ((110 + random.below(4)) << 7) | random.below(128);
    bits[0] = static_cast<unsigned short>(high);
    bits[1] = static_cast<unsigned short>(low);
    return static_cast<double>(Codes<gg::format::BF16>::value(high, 0)) +
           static_cast<double>(Codes<gg::format::BF16>::value(low, 0));
}

inline OperandRows random_operands(int planes, int rows, int used_rows, int width, Random& random) {
    const int stride = (width + 63) / 64 * 64;
    const std::size_t plane = static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride);
    OperandRows x{std::vector<unsigned short>(plane * static_cast<std::size_t>(planes), nan_half), {}};
    for (int n = 0; n < used_rows; ++n) {
        BoundedRow row;
        for (int i = 0; i < stride; ++i) {
            unsigned short bits[2] = {0, 0};
            if (i < width) row.push_back({random_operand(random, planes, bits), 0});
            for (int p = 0; p < planes; ++p)
                x.bits[static_cast<std::size_t>(p) * plane + static_cast<std::size_t>(n) * stride + i] =
                    bits[p];
        }
        x.rows.push_back(row);
    }
    return x;
}

}  // namespace cuda_test
