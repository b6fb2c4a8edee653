// Running error analysis: an oracle that is written once, in double, and yields with every number how far a
// right float32 evaluation of the same formula may be from it.
//
// Each float32 operation rounds its result by at most 2^-24 of it; errors of operands are carried along to
// first order and beyond (products of errors included). A sum in any order, of terms that pass through at
// most n additions each, is off by at most n u / (1 - n u) of the sum of magnitudes (Higham, "Accuracy and
// Stability of Numerical Algorithms", section 4.2). Fused multiply-adds only leave roundings out.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "catch.hpp"

namespace gg_test {

/// The unit roundoff of float32.
inline constexpr double unit = 0x1p-24;

/// A number as real arithmetic has it, and the most that float32 may be off.
struct Bounded {
    double value = 0.0;
    double error = 0.0;

    Bounded() = default;
    /// A number that float32 has exactly.
    Bounded(double exact) : value(exact) {}
    Bounded(double exact, double carried) : value(exact), error(carried) {}
};

/// The result of one float32 operation (or of a few: `roundings`) whose operands contribute `carried`.
inline Bounded rounded(double value, double carried, double roundings = 1.0) {
    return {value, carried + roundings * unit * (std::fabs(value) + carried) + 0x1p-149};
}

inline Bounded operator+(Bounded a, Bounded b) {
    return rounded(a.value + b.value, a.error + b.error);
}
inline Bounded operator-(Bounded a, Bounded b) {
    return rounded(a.value - b.value, a.error + b.error);
}
inline Bounded operator*(Bounded a, Bounded b) {
    return rounded(a.value * b.value,
                   std::fabs(a.value) * b.error + std::fabs(b.value) * a.error + a.error * b.error);
}
inline Bounded operator/(Bounded a, Bounded b) {
    const double q = a.value / b.value;
    return rounded(q, (a.error + std::fabs(q) * b.error) / (std::fabs(b.value) - b.error));
}
/// sqrt(v) - sqrt(v - e) <= e / sqrt(v).
inline Bounded sqrt(Bounded a) {
    const double root = std::sqrt(a.value);
    return rounded(root, a.error > 0.0 ? a.error / root : 0.0);
}
/// gg::exp is within 2 ulp, four units at most (core/math_test.cpp).
inline Bounded exp(Bounded a) {
    const double power = std::exp(a.value);
    return rounded(power, power * std::expm1(a.error), 4.0);
}
/// Below -88.7 the exponential is infinite and the result 0, where 2^-127 at most would be right.
inline Bounded sigmoid(Bounded a) {
    const Bounded y = Bounded(1.0) / (Bounded(1.0) + exp(Bounded(0.0) - a));
    return {y.value, y.error + 0x1p-127};
}
inline Bounded min(Bounded a, double b) {
    return {std::min(a.value, b), a.error};
}
inline Bounded max(Bounded a, double b) {
    return {std::max(a.value, b), a.error};
}

/// A sum whose terms pass through at most `additions` additions.
inline Bounded sum(const std::vector<Bounded>& terms, double additions) {
    double value = 0.0, carried = 0.0, magnitude = 0.0;
    for (const Bounded& term : terms) {
        value += term.value;
        carried += term.error;
        magnitude += std::fabs(term.value) + term.error;
    }
    return {value, carried + additions * unit / (1.0 - additions * unit) * magnitude};
}

/// Additions that an element of a row of `n` passes through when 16 lanes each sum every 16th element (whole
/// chunks of 32 at a time) and a tree of depth 4 sums the lanes.
inline double lane_additions(std::size_t n) {
    return 2.0 * static_cast<double>((n + 31) / 32) + 4.0;
}

/// Compares many results with their oracle: `worst` is the largest |difference| / bound.
class Agreement {
  public:
    void add(float got, const Bounded& want) {
        const double difference = std::fabs(static_cast<double>(got) - want.value);
        if (std::isnan(difference))
            worst_ = std::numeric_limits<double>::infinity();
        else if (difference > 0.0)
            worst_ = std::max(worst_, difference / want.error);
        bound_ = std::max(bound_, want.error);
        size_ = std::max(size_, std::fabs(want.value));
        ++count_;
    }

    /// Every result lies within its bound, and the bounds mean something: none is above `tight` of the
    /// largest value.
    void require(double tight) const {
        REQUIRE(count_ > 0);
        CHECK(worst_ <= 1.0);
        CHECK(bound_ <= tight * size_);
    }

  private:
    double worst_ = 0.0, bound_ = 0.0, size_ = 0.0;
    std::size_t count_ = 0;
};

}  // namespace gg_test
