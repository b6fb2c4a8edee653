// MXFP4 exhaustively: 16 codes by 256 scales in both layouts, against ldexp in double.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "catch.hpp"
#include "fixture.hpp"
#include "gg/format/mxfp4_apart.hpp"
#include "gg/format/visit.hpp"

using namespace gg;
using format::MXFP4;

namespace {

/// By the OCP specification: sign, two bits of exponent with bias 1, one bit of fraction.
double e2m1(int code) {
    const int exponent = code >> 1 & 3, fraction = code & 1;
    const double magnitude = exponent == 0 ? fraction * 0.5 : std::ldexp(1 + fraction * 0.5, exponent - 1);
    return code & 8 ? -magnitude : magnitude;
}

bool is_expected(float value, int code, int scale) {
    if (scale == 255) return std::isnan(value);
    const double expected = std::ldexp(e2m1(code), scale - 127);
    return value == static_cast<float>(expected) && std::signbit(value) == std::signbit(expected);
}

/// Element i of a block holds this code: each code at two places, its neighbours differing.
int code_at(int element, int rotation) {
    return (element * 5 + rotation) & 15;
}

}  // namespace

TEST_CASE("the sixteen values of E2M1") {
    const double expected[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6};
    for (int code = 0; code < 16; ++code) CHECK(e2m1(code) == expected[code]);
}

TEST_CASE("GGUF's layout, every code with every scale at every place") {
    int wrong = 0;
    for (int scale = 0; scale < 256; ++scale)
        for (int rotation = 0; rotation < 16; ++rotation) {
            unsigned char block[17] = {static_cast<unsigned char>(scale)};
            for (int j = 0; j < 16; ++j)
                block[1 + j] =
                    static_cast<unsigned char>(code_at(j, rotation) | code_at(j + 16, rotation) << 4);
            float out[32];
            MXFP4::decode(block, out);
            for (int j = 0; j < 32; ++j) wrong += !is_expected(out[j], code_at(j, rotation), scale);
        }
    CHECK(wrong == 0);
}

TEST_CASE("the layout of safetensors, every code with every scale at every place") {
    int wrong = 0;
    for (int scale = 0; scale < 256; ++scale)
        for (int rotation = 0; rotation < 16; ++rotation) {
            unsigned char quants[16];
            for (int k = 0; k < 16; ++k)
                quants[k] =
                    static_cast<unsigned char>(code_at(2 * k, rotation) | code_at(2 * k + 1, rotation) << 4);
            float out[32];
            format::decode_mxfp4_apart(quants, static_cast<unsigned char>(scale), out);
            for (int j = 0; j < 32; ++j) wrong += !is_expected(out[j], code_at(j, rotation), scale);

            unsigned char block[17];
            const auto exponent = static_cast<unsigned char>(scale);
            format::join_mxfp4(quants, &exponent, 1, block);
            float joined[32];
            MXFP4::decode(block, joined);
            for (int j = 0; j < 32; ++j) wrong += !is_expected(joined[j], code_at(j, rotation), scale);
        }
    CHECK(wrong == 0);
}

TEST_CASE("the layouts convert into each other") {
    const std::size_t count = 300;
    std::mt19937 random(7);
    std::vector<unsigned char> quants(16 * count), exponents(count);
    for (auto* bytes : {&quants, &exponents})
        for (auto& byte : *bytes) byte = static_cast<unsigned char>(random());
    std::vector<unsigned char> blocks(17 * count);
    format::join_mxfp4(quants.data(), exponents.data(), count, blocks.data());
    std::vector<unsigned char> quants_again(quants.size()), exponents_again(count);
    format::split_mxfp4(blocks.data(), count, quants_again.data(), exponents_again.data());
    CHECK(quants_again == quants);
    CHECK(exponents_again == exponents);
}

TEST_CASE("interleaved gate and up rows come apart") {
    const std::size_t rows = 5, groups = 3;
    std::mt19937 random(8);
    std::vector<unsigned char> quants(2 * rows * groups * 16), exponents(2 * rows * groups);
    for (auto& byte : quants) byte = static_cast<unsigned char>(random());
    for (auto& byte : exponents) byte = static_cast<unsigned char>(random() % 200);
    std::vector<unsigned char> gate(rows * groups * 17), up(rows * groups * 17);
    format::join_mxfp4_gate_up(quants.data(), exponents.data(), rows, groups, gate.data(), up.data());
    for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t group = 0; group < groups; ++group)
            for (const bool is_up : {false, true}) {
                const std::size_t from = (2 * row + is_up) * groups + group;
                std::vector<float> expected(32), out(32);
                format::decode_mxfp4_apart(quants.data() + 16 * from, exponents[from], expected.data());
                MXFP4::decode((is_up ? up : gate).data() + 17 * (row * groups + group), out.data());
                CHECK(gg_test::first_difference(out, expected) == 32);
            }
}
