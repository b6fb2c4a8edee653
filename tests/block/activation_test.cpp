// GELU and SwiGLU against double, and the loops over rows that apply them.
#include <cmath>

#include "fixture.hpp"
#include "gg/block/gelu.hpp"
#include "gg/block/swiglu.hpp"

using namespace gg_test;

namespace {

/// -limit to limit in small steps.
std::vector<float> range(float limit) {
    std::vector<float> x;
    for (int i = -20000; i <= 20000; ++i) x.push_back(limit * static_cast<float>(i) / 20000.0f);
    return x;
}

}  // namespace

TEST_CASE("GeluTanh equals x (1 + tanh u) / 2") {
    Agreement agreement;
    for (const float x : range(12.0f)) {
        const Bounded b(x);
        const Bounded u =
            Bounded(0.79788456080286536, unit) * (b + Bounded(0.044715, 0.05 * unit) * b * b * b);
        // The bound is that of the form with sigmoid; the value is the definition's.
        Bounded want = b * sigmoid(Bounded(2.0) * u);
        const double d = x, v = std::sqrt(2.0 / std::acos(-1.0)) * (d + 0.044715 * d * d * d);
        REQUIRE(std::fabs(want.value - 0.5 * d * (1.0 + std::tanh(v))) <= 1e-14);
        agreement.add(gg::GeluTanh::apply(x), want);
    }
    agreement.require(1e-6);
    CHECK(gg::GeluTanh::apply(0.0f) == 0.0f);
    CHECK(gg::GeluTanh::apply(1.0f) == Approx(0.841192).epsilon(1e-6));
    CHECK(gg::GeluTanh::apply(30.0f) == 30.0f);
    CHECK(gg::GeluTanh::apply(-30.0f) == 0.0f);
}

TEST_CASE("Gelu equals x Phi(x), the left tail included") {
    Agreement agreement;
    for (const float x : range(12.0f)) {
        const double z = -static_cast<double>(x) / std::sqrt(2.0), tail = std::erfc(z);
        // erfc's argument is rounded twice, which its slope 2/sqrt(pi) exp(-z^2) carries on; erfc itself has
        // a relative error of (8 + 2.2 z^2) units (core/math_test.cpp).
        const double carried = 1.1283791671 * std::exp(-z * z) * 2.0 * unit * std::fabs(z) * 1.0001;
        const double square = z < 0.0 ? 0.0 : z * z;
        const Bounded erfc{tail, carried + (8.0 + 2.2 * square) * unit * tail + 0x1p-149};
        agreement.add(gg::Gelu::apply(x), Bounded(0.5) * Bounded(x) * erfc);
    }
    agreement.require(1e-6);
    CHECK(gg::Gelu::apply(0.0f) == 0.0f);
    CHECK(gg::Gelu::apply(1.0f) == Approx(0.8413447).epsilon(1e-6));
    CHECK(gg::Gelu::apply(30.0f) == 30.0f);
    CHECK(gg::Gelu::apply(-30.0f) == 0.0f);
}

TEST_CASE("Swiglu equals silu(gate) up") {
    Agreement agreement;
    for (const float x : range(30.0f)) {
        const Bounded gate(x), up(1.5f - x);
        agreement.add(gg::Swiglu::apply(x, 1.5f - x), gate * sigmoid(gate) * up);
    }
    agreement.require(1e-6);
    CHECK(gg::Swiglu::apply(1.0f, 2.0f) == Approx(1.4621172).epsilon(1e-7));
    CHECK(gg::Swiglu::apply(-200.0f, 3.0f) == 0.0f);
}

TEST_CASE("ClampedSwiglu: the known values of gpt-oss") {
    const auto near = [](float got, double want, double digit) {
        return std::fabs(static_cast<double>(got) - want) <= digit;
    };
    CHECK(near(gg::ClampedSwiglu::apply(1.0f, 0.0f), 0.8457958, 1e-7));
    CHECK(near(gg::ClampedSwiglu::apply(-1.0f, 2.0f), -0.4626127, 1e-7));
    CHECK(near(gg::ClampedSwiglu::apply(10.0f, 10.0f), 55.999625, 4e-6));
    CHECK(near(gg::ClampedSwiglu::apply(7.0f, -7.0f), -41.999719, 4e-6));
    CHECK(near(gg::ClampedSwiglu::apply(-10.0f, 3.0f), -1.6e-6, 5e-8));
}

TEST_CASE("ClampedSwiglu clamps gate from above and up on both sides") {
    Agreement agreement;
    for (const float x : range(20.0f))
        for (const float y : {-20.0f, -7.0f, -1.0f, 0.3f, 6.9f, 7.1f, x}) {
            const Bounded gate(std::min(x, 7.0f)), up(std::clamp(y, -7.0f, 7.0f));
            const Bounded want = gate * sigmoid(Bounded(1.702, unit) * gate) * (up + Bounded(1.0));
            agreement.add(gg::ClampedSwiglu::apply(x, y), want);
        }
    agreement.require(1e-5);
}

TEST_CASE("rows are activated element by element, in place too") {
    std::mt19937 random(1);
    for (const auto set : instruction_sets())
        for (const int width : {1, 7, 37, 64, 320}) {
            INFO(gg::host::to_string(set) << ", width " << width);
            const auto n = static_cast<std::size_t>(width);
            const std::vector<float> gate = random_floats(random, n, 3.0f),
                                     up = random_floats(random, n, 3.0f);
            std::vector<float> y(n), in_place = up, gelu(n);
            GG_HOST_DISPATCH(set, activate_row<gg::ClampedSwiglu>(gate.data(), up.data(), y.data(), width));
            GG_HOST_DISPATCH(
                set, activate_row<gg::ClampedSwiglu>(gate.data(), in_place.data(), in_place.data(), width));
            GG_HOST_DISPATCH(set, activate_row<gg::GeluTanh>(nullptr, up.data(), gelu.data(), width));
            CHECK(in_place == y);
            Agreement gated, plain;
            for (std::size_t i = 0; i < n; ++i) {
                const Bounded g = min(Bounded(gate[i]), 7.0), u = max(min(Bounded(up[i]), 7.0), -7.0),
                              x(up[i]);
                gated.add(y[i], g * sigmoid(Bounded(1.702, unit) * g) * (u + Bounded(1.0)));
                plain.add(gelu[i], x * sigmoid(Bounded(2.0) * Bounded(0.79788456080286536, unit) *
                                               (x + Bounded(0.044715, 0.05 * unit) * x * x * x)));
            }
            gated.require(1e-5);
            plain.require(1e-5);
        }
}
