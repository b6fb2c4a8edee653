// The rotary embedding: both pairings, plain and YaRN frequencies.
#include "gg/block/rope.hpp"

#include <cmath>
#include <random>

#include "bounded.hpp"
#include "gg/model/dims.hpp"

using namespace gg_test;

namespace {

gg::Dims gpt_oss_dims() {
    gg::Dims dims;
    dims.head_dim = 64;
    dims.rope_base = 150000.0;
    dims.yarn_factor = 32.0;
    dims.yarn_original_context = 4096.0;
    return dims;
}

/// Turns a random head by random angles and compares with the rotation in double.
template <class Policy>
void check_rotation(int head_dim, int (*first)(int i, int half), int (*second)(int i, int half)) {
    std::mt19937 random(static_cast<unsigned>(head_dim));
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<double> angle(-3.2, 3.2);
    gg::Dims dims;
    dims.head_dim = head_dim;
    const int half = head_dim / 2;
    std::vector<float> x, cosines, sines;
    for (int i = 0; i < head_dim; ++i) x.push_back(normal(random));
    for (int i = 0; i < half; ++i) {
        const double a = angle(random);
        cosines.push_back(static_cast<float>(std::cos(a)));
        sines.push_back(static_cast<float>(std::sin(a)));
    }
    std::vector<float> y = x;
    Policy::transform(0, dims, gg::HeadPlace{0, false, cosines.data(), sines.data()}, y.data());
    Agreement agreement;
    for (int i = 0; i < half; ++i) {
        const auto a = static_cast<std::size_t>(first(i, half)),
                   b = static_cast<std::size_t>(second(i, half));
        const Bounded c(cosines[static_cast<std::size_t>(i)]), s(sines[static_cast<std::size_t>(i)]);
        agreement.add(y[a], Bounded(x[a]) * c - Bounded(x[b]) * s);
        agreement.add(y[b], Bounded(x[b]) * c + Bounded(x[a]) * s);
    }
    agreement.require(1e-6);
}

}  // namespace

TEST_CASE("Rope turns adjacent pairs, HalfSplitRope and YarnRope pairs half a head apart") {
    const auto low = [](int i, int) { return i; };
    const auto high = [](int i, int half) { return i + half; };
    const auto even = [](int i, int) { return 2 * i; };
    const auto odd = [](int i, int) { return 2 * i + 1; };
    for (const int head_dim : {2, 10, 64, 80}) {
        check_rotation<gg::Rope>(head_dim, even, odd);
        check_rotation<gg::HalfSplitRope>(head_dim, low, high);
        check_rotation<gg::YarnRope>(head_dim, low, high);
    }
}

TEST_CASE("a pair turns counter-clockwise") {
    gg::Dims dims;
    dims.head_dim = 4;
    const float cosines[] = {0.0f, 1.0f},
                sines[] = {1.0f, 0.0f};  // pair 0 by a quarter turn, pair 1 not at all
    const gg::HeadPlace head{0, false, cosines, sines};
    float adjacent[] = {1.0f, 2.0f, 3.0f, 4.0f}, apart[] = {1.0f, 2.0f, 3.0f, 4.0f};
    gg::Rope::transform(0, dims, head, adjacent);
    gg::HalfSplitRope::transform(0, dims, head, apart);
    CHECK(std::vector<float>(adjacent, adjacent + 4) == std::vector<float>{-2.0f, 1.0f, 3.0f, 4.0f});
    CHECK(std::vector<float>(apart, apart + 4) == std::vector<float>{-3.0f, 2.0f, 1.0f, 4.0f});
}

TEST_CASE("plain frequencies are powers of the base") {
    gg::Dims dims;
    dims.head_dim = 64;
    dims.rope_base = 10000.0;
    CHECK(gg::Rope::inverse_frequency(dims, 0) == 1.0);
    CHECK(gg::Rope::inverse_frequency(dims, 16) == Approx(0.01).epsilon(1e-14));
    CHECK(gg::Rope::inverse_frequency(dims, 8) == Approx(0.1).epsilon(1e-14));
    CHECK(gg::HalfSplitRope::inverse_frequency(dims, 31) ==
          Approx(std::pow(10000.0, -31.0 / 32.0)).epsilon(1e-14));
    CHECK(gg::Rope::magnitude(dims) == 1.0);
}

TEST_CASE("YaRN's inverse frequencies for gpt-oss") {
    // By Hugging Face transformers, bounds not rounded: nine digits are known.
    const gg::Dims dims = gpt_oss_dims();
    const std::pair<int, double> goldens[] = {{0, 1.0},           {8, .0508132748},    {9, .0317056962},
                                              {12, .00679495949}, {17, 1.29318701e-4}, {18, 3.83088124e-5},
                                              {31, 3.02351143e-7}};
    for (const auto& [i, golden] : goldens) {
        INFO("pair " << i);
        CHECK(std::fabs(gg::YarnRope::inverse_frequency(dims, i) - golden) <= 1e-8 * golden);
    }
    CHECK(gg::YarnRope::magnitude(dims) == Approx(1.3465736).epsilon(4e-8));
    CHECK(gg::YarnRope::bound(dims, 32.0) == Approx(8.092779).epsilon(1e-7));
    CHECK(gg::YarnRope::bound(dims, 1.0) == Approx(17.398025).epsilon(1e-7));
}

TEST_CASE("YaRN keeps fast pairs, slows the slow ones by the factor, and does nothing at factor 1") {
    gg::Dims dims = gpt_oss_dims();
    for (int i = 0; i < 32; ++i) {
        const double plain = gg::Rope::inverse_frequency(dims, i),
                     yarn = gg::YarnRope::inverse_frequency(dims, i);
        if (i <= 8) CHECK(yarn == plain);
        if (i >= 18) CHECK(yarn == Approx(plain / 32.0).epsilon(1e-14));
        if (i > 8 && i < 18) CHECK((yarn < plain && yarn > plain / 32.0));
    }
    dims.yarn_factor = 1.0;
    for (int i = 0; i < 32; ++i)
        CHECK(gg::YarnRope::inverse_frequency(dims, i) ==
              Approx(gg::Rope::inverse_frequency(dims, i)).epsilon(1e-14));
    CHECK(gg::YarnRope::magnitude(dims) == 1.0);
}
