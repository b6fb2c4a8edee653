// What the tests of prefill's kernels share: operand buffers with known values, and
// guarded outputs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cuda/launch.cuh"
#include "gg/cuda/operand.cuh"
#include "gg/cuda/prefill_plan.hpp"
#include "gg/format/floats.hpp"

namespace prefill_test {

using cuda_test::DeviceArray;
using cuda_test::launch_and_wait;

/// Dimensions of a test.
template <int width, int expert_count = 1, int used = 1>
struct TestDims {
    static constexpr int hidden = width, experts = expert_count, experts_used = used, head_dim = 64;
    static constexpr float norm_epsilon = 1e-5f;
};

using Random = std::mt19937;

/// A signed integer in [low, high].
inline int random_int(Random& random, int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
}

/// Bits of a 16-bit float of either sign whose exponent field lies in [low, high].
inline int random_half(Random& random, int low, int high) {
    return random_int(random, 0, 1) << 15 | random_int(random, low, high) << 10 | random_int(random, 0, 1023);
}
inline int random_bfloat(Random& random, int low, int high) {
    return random_int(random, 0, 1) << 15 | random_int(random, low, high) << 7 | random_int(random, 0, 127);
}

inline double half_double(int bits) {
    return static_cast<double>(gg::format::half_to_float(static_cast<unsigned>(bits)));
}
inline double bfloat_double(int bits) {
    return static_cast<double>(gg::float_from_bits(static_cast<unsigned>(bits) << 16));
}

inline std::vector<float> random_floats(Random& random, std::size_t count, float deviation = 1.0f) {
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

/// The value of an operand of 16-bit planes.
template <class Operand>
double operand_value(const std::vector<unsigned short>& bits, std::size_t plane, std::size_t i) {
    if constexpr (Operand::planes == 1)
        return half_double(bits[i]);
    else
        return bfloat_double(bits[i]) + bfloat_double(bits[plane + i]);
}

/// How far an operand may lie from the value that it holds.
template <class Operand>
double operand_rounding(double value) {
    // FP16 keeps 11 significant bits, or multiples of 2^-24; two BF16 keep at least 8 + 8, or nearly zero.
    return Operand::planes == 1 ? std::abs(value) * 0x1p-11 + 0x1p-25 : std::abs(value) * 0x1p-16 + 0x1p-120;
}

/// An operand buffer of random numbers around 1, padding zero.
template <class Operand>
struct RandomOperand {
    int rows, width, stride;
    std::vector<unsigned short> bits;

    RandomOperand(Random& random, int row_count, int row_width)
        : rows(row_count),
          width(row_width),
          stride(gg::cuda::operand_stride(row_width)),
          bits(static_cast<std::size_t>(Operand::planes) * plane()) {
        for (int row = 0; row < rows; ++row)
            for (int i = 0; i < width; ++i) {
                const std::size_t at = index(row, i);
                bits[at] = static_cast<unsigned short>(
                    Operand::planes == 1 ? random_half(random, 8, 16) : random_bfloat(random, 120, 128));
                if (Operand::planes == 2)
                    bits[plane() + at] = static_cast<unsigned short>(random_bfloat(random, 112, 119));
            }
    }
    std::size_t plane() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride); }
    std::size_t index(int row, int i) const {
        return static_cast<std::size_t>(row) * static_cast<std::size_t>(stride) + static_cast<std::size_t>(i);
    }
    double value(int row, int i) const { return operand_value<Operand>(bits, plane(), index(row, i)); }
};

/// Elements before and after an output that must stay as they are.
constexpr std::size_t guard = 64;

/// An output that begins as NaN, between guards.
template <class T>
class Guarded {
  public:
    explicit Guarded(std::size_t count) : array_(poison(count)), count_(count) {}

    T* data() const { return array_.data() + guard; }

    /// The values, after a check that the guards were left alone.
    std::vector<T> read() const {
        const std::vector<T> all = array_.read(), before = poison(count_);
        CHECK(std::memcmp(all.data(), before.data(), guard * sizeof(T)) == 0);
        CHECK(std::memcmp(all.data() + guard + count_, before.data(), guard * sizeof(T)) == 0);
        return std::vector<T>(all.begin() + static_cast<std::ptrdiff_t>(guard),
                              all.end() - static_cast<std::ptrdiff_t>(guard));
    }

  private:
    static std::vector<T> poison(std::size_t count) {
        std::vector<T> values(count + 2 * guard);
        std::memset(values.data(), 0xFF, values.size() * sizeof(T));  // a NaN in FP32, FP16 and BF16; -1
        return values;
    }

    DeviceArray<T> array_;
    std::size_t count_;
};

/// The largest of |found - expected| / bound, infinite if something found is no number.
class Worst {
  public:
    void see(double found, double expected, double bound) {
        const double error = std::abs(found - expected);
        const double ratio = error == 0 ? 0 : error / bound;
        worst_ = ratio <= worst_     ? worst_
                 : std::isnan(ratio) ? std::numeric_limits<double>::infinity()
                                     : ratio;
    }
    double ratio() const { return worst_; }

  private:
    double worst_ = 0;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace prefill_test
