// The elementary functions against double <cmath>, over whole ranges of floats, as scalars and as the loops
// that the compiler vectorises, with fused multiply-adds, for the processor's wider instruction sets.
#include "gg/core/math.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

/// The distance of neighbouring floats at a number.
double ulp(double x) {
    int exponent = 0;
    std::frexp(x, &exponent);
    return std::ldexp(1.0, std::max(exponent - 24, -149));
}

/// Every stride-th float from `low` to `high`, in ascending order.
std::vector<float> floats(float low, float high, unsigned stride) {
    const auto key = [](float x) {  // a float's place in the order of all floats
        const auto bits = static_cast<int>(gg::float_bits(x));
        return bits < 0 ? std::numeric_limits<int>::min() - static_cast<long>(bits) : static_cast<long>(bits);
    };
    std::vector<float> all;
    for (long k = key(low); k <= key(high); k += stride)
        all.push_back(
            gg::float_from_bits(static_cast<unsigned>(k < 0 ? std::numeric_limits<int>::min() - k : k)));
    return all;
}

using Loop = void (*)(const float* x, float* y, std::size_t n);
struct Variant {
    const char* name;
    Loop loop;
};

// One function as loops for each instruction set: `variants` has those that this processor can run.
#define GG_TEST_LOOP(name, target, call)                        \
    target void name(const float* x, float* y, std::size_t n) { \
        for (std::size_t i = 0; i < n; ++i) y[i] = call(x[i]);  \
    }
#if defined(__x86_64__)
#define GG_TEST_FUNCTION(f)                                                         \
    struct Loops_##f {                                                              \
        static GG_TEST_LOOP(plain, , gg::f);                                        \
        static GG_TEST_LOOP(avx2, __attribute__((target("avx2,fma"))), gg::f);      \
        static GG_TEST_LOOP(avx512, __attribute__((target("avx512f,fma"))), gg::f); \
        static std::vector<Variant> variants() {                                    \
            std::vector<Variant> all = {{"plain", plain}};                          \
            if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))    \
                all.push_back({"avx2", avx2});                                      \
            if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma")) \
                all.push_back({"avx512", avx512});                                  \
            return all;                                                             \
        }                                                                           \
    }
#else
#define GG_TEST_FUNCTION(f)                                                   \
    struct Loops_##f {                                                        \
        static GG_TEST_LOOP(plain, , gg::f);                                  \
        static std::vector<Variant> variants() { return {{"plain", plain}}; } \
    }
#endif

GG_TEST_FUNCTION(exp);
GG_TEST_FUNCTION(log);
GG_TEST_FUNCTION(erfc);
GG_TEST_FUNCTION(sigmoid);
GG_TEST_FUNCTION(sqrt);

std::vector<float> evaluate(Loop loop, const std::vector<float>& x) {
    std::vector<float> y(x.size());
    loop(x.data(), y.data(), x.size());
    return y;
}

/// The largest of |f(x) - exact(x)| in units of allowed(x, exact(x)), and where it is.
struct Worst {
    double ratio = 0.0;
    float x = 0.0f;
};

template <class Exact, class Allowed>
Worst worst(const std::vector<float>& x, const std::vector<float>& y, Exact exact, Allowed allowed) {
    Worst w;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double right = exact(static_cast<double>(x[i]));
        const double ratio = std::fabs(static_cast<double>(y[i]) - right) / allowed(x[i], right);
        if (std::isnan(ratio)) return {std::numeric_limits<double>::infinity(), x[i]};
        if (ratio > w.ratio) w = {ratio, x[i]};
    }
    return w;
}

/// Checks all variants of a function: within `limit` ulp of `exact`, and of the plain loop within `apart`.
template <class Loops, class Exact>
void check_ulps(const std::vector<float>& x, Exact exact, double limit, double apart) {
    const auto in_ulps = [](float, double right) { return ulp(right); };
    const std::vector<float> plain = evaluate(Loops::variants()[0].loop, x);
    for (const Variant& variant : Loops::variants()) {
        const std::vector<float> y = evaluate(variant.loop, x);
        const Worst error = worst(x, y, exact, in_ulps);
        INFO(variant.name << " at " << error.x);
        CHECK(error.ratio <= limit);
        double largest = 0.0;
        for (std::size_t i = 0; i < x.size(); ++i)
            largest = std::max(largest, std::fabs(static_cast<double>(y[i]) - static_cast<double>(plain[i])) /
                                            ulp(static_cast<double>(plain[i])));
        CHECK(largest <= apart);
    }
}

void check_ascending(const std::vector<float>& y) {
    std::size_t falls = 0;
    for (std::size_t i = 1; i < y.size(); ++i) falls += !(y[i] >= y[i - 1]);
    CHECK(falls == 0);
}

}  // namespace

TEST_CASE("the samples are floats in order, both ends included") {
    CHECK(floats(-0x1p-149f, 0x1p-149f, 1) == std::vector<float>{-0x1p-149f, 0.0f, 0x1p-149f});
    CHECK(floats(1.0f, 1.0f + 0x1p-21f, 2) == std::vector<float>{1.0f, 1.0f + 0x1p-22f, 1.0f + 0x1p-21f});
}

TEST_CASE("exp is within 1.1 ulp wherever the result is a float") {
    const auto exact = [](double x) { return std::exp(x); };
    check_ulps<Loops_exp>(floats(-120.0f, 88.72283f, 997), exact, 1.1, 1.0);
    check_ulps<Loops_exp>(floats(0.5f, 2.0f, 17), exact, 1.1, 1.0);
    check_ulps<Loops_exp>(floats(-104.0f, -86.0f, 7), exact, 1.1, 1.0);  // subnormal results
}

TEST_CASE("exp at the ends of its range") {
    CHECK(gg::exp(0.0f) == 1.0f);
    CHECK(gg::exp(-0.0f) == 1.0f);
    CHECK(gg::exp(88.7228394f) == inf);
    CHECK(gg::exp(1e30f) == inf);
    CHECK(gg::exp(inf) == inf);
    CHECK(gg::exp(-103.0f) > 0.0f);
    CHECK(gg::exp(-104.0f) == 0.0f);
    CHECK(gg::exp(-1e30f) == 0.0f);
    CHECK(gg::exp(-inf) == 0.0f);
    CHECK(std::isnan(gg::exp(gg::quiet_nan())));
    CHECK(std::isnan(gg::exp(-gg::quiet_nan())));
}

TEST_CASE("exp never falls: the order of a softmax is that of its logits") {
    // Neighbouring floats, across several changes of 2^n.
    check_ascending(evaluate(Loops_exp::variants()[0].loop, floats(-1.8f, -0.2f, 1)));
    check_ascending(evaluate(Loops_exp::variants()[0].loop, floats(-110.0f, 90.0f, 97)));
}

TEST_CASE("log is within 1 ulp, subnormal arguments included") {
    const auto exact = [](double x) { return std::log(x); };
    check_ulps<Loops_log>(floats(0x1p-149f, 3.4e38f, 997), exact, 1.0, 1.0);
    check_ulps<Loops_log>(floats(0.5f, 2.0f, 5), exact, 1.0, 1.0);
}

TEST_CASE("log at the ends of its range") {
    CHECK(gg::log(1.0f) == 0.0f);
    CHECK(gg::log(0.0f) == -inf);
    CHECK(gg::log(-0.0f) == -inf);
    CHECK(gg::log(inf) == inf);
    CHECK(std::isnan(gg::log(-1.0f)));
    CHECK(std::isnan(gg::log(-0x1p-149f)));
    CHECK(std::isnan(gg::log(-inf)));
    CHECK(std::isnan(gg::log(gg::quiet_nan())));
}

TEST_CASE("sigmoid is within 3 ulp down to results of 2^-126, and 0 below") {
    const auto exact = [](double x) { return 1.0 / (1.0 + std::exp(-x)); };
    check_ulps<Loops_sigmoid>(floats(-87.0f, 40.0f, 997), exact, 3.0, 3.0);
    check_ascending(evaluate(Loops_sigmoid::variants()[0].loop, floats(-100.0f, 100.0f, 97)));
    CHECK(gg::sigmoid(0.0f) == 0.5f);
    CHECK(gg::sigmoid(inf) == 1.0f);
    CHECK(gg::sigmoid(-inf) == 0.0f);
    CHECK(gg::sigmoid(-89.0f) == 0.0f);
    CHECK(std::isnan(gg::sigmoid(gg::quiet_nan())));
}

TEST_CASE("erfc has a relative error of (8 + 2.2 x^2) 2^-24 at most") {
    // The exponent p - x^2 has a magnitude of x^2 and is rounded twice: e^ makes that a relative error of 2
    // x^2 units of 2^-24. The rest is the fit's 1.2e-7, the polynomial's and exp's rounding.
    const auto exact = [](double x) { return std::erfc(x); };
    const auto allowed = [](float x, double right) {
        const double square = x < 0.0f ? 0.0 : static_cast<double>(x) * static_cast<double>(x);
        return (8.0 + 2.2 * square) * 0x1p-24 * right;
    };
    const std::vector<float> x = floats(-12.0f, 9.1f, 997);
    for (const Variant& variant : Loops_erfc::variants()) {
        const Worst error = worst(x, evaluate(variant.loop, x), exact, allowed);
        INFO(variant.name << " at " << error.x);
        CHECK(error.ratio <= 1.0);
    }
    CHECK(gg::erfc(inf) == 0.0f);
    CHECK(gg::erfc(-inf) == 2.0f);
    CHECK(gg::erfc(20.0f) == 0.0f);
    CHECK(gg::erfc(-20.0f) == 2.0f);
    CHECK(std::isnan(gg::erfc(gg::quiet_nan())));
}

TEST_CASE("sqrt is rounded correctly") {
    check_ulps<Loops_sqrt>(
        floats(0.0f, 3.4e38f, 997), [](double x) { return std::sqrt(x); }, 0.5000001, 0.0);
    CHECK(gg::sqrt(inf) == inf);
    CHECK(gg::float_bits(gg::sqrt(-0.0f)) == gg::float_bits(-0.0f));
    CHECK(std::isnan(gg::sqrt(-1.0f)));
}

TEST_CASE("max and min take the second if the first is not a number") {
    CHECK(gg::max(1.0f, 2.0f) == 2.0f);
    CHECK(gg::max(2.0f, 1.0f) == 2.0f);
    CHECK(gg::min(1.0f, 2.0f) == 1.0f);
    CHECK(gg::min(2.0f, 1.0f) == 1.0f);
    CHECK(gg::max(gg::quiet_nan(), 1.0f) == 1.0f);
    CHECK(gg::min(gg::quiet_nan(), 1.0f) == 1.0f);
}
