// Encoding against the PyPI package gguf, bit for bit, and by its properties.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "catch.hpp"
#include "fixture.hpp"
#include "gg/format/encode.hpp"
#include "gg/format/visit.hpp"

using namespace gg;
using gg_test::Fixture;

namespace {

std::vector<std::byte> encode(DType type, const std::vector<float>& row) {
    std::vector<std::byte> bytes(row.size() / info(type).elements * info(type).bytes);
    format::encode_row(type, row.data(), row.size(), bytes.data());
    return bytes;
}

std::vector<float> round_trip(DType type, const std::vector<float>& row) {
    std::vector<float> out(row.size());
    format::decode_row(type, encode(type, row).data(), out.size(), out.data());
    return out;
}

std::vector<float> random_row(std::size_t elements, float scale) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> row(elements);
    for (float& x : row) x = normal(random);
    return row;
}

}  // namespace

TEST_CASE("Q8_0 and MXFP4 encode to the reference's bytes") {
    for (const DType type : {DType::q8_0, DType::mxfp4}) {
        INFO(info(type).name);
        const Fixture fixture = Fixture::read(type == DType::q8_0 ? "encode_q8_0.bin" : "encode_mxfp4.bin",
                                              32 * sizeof(float), info(type).bytes);
        const auto bytes = encode(type, gg_test::as_floats(fixture.first));
        REQUIRE(bytes.size() == fixture.second.size());
        for (std::size_t block = 0; block < fixture.blocks; ++block) {
            INFO("block " << block);
            const std::size_t at = block * info(type).bytes;
            CHECK(std::memcmp(bytes.data() + at, fixture.second.data() + at, info(type).bytes) == 0);
        }
    }
}

TEST_CASE("values that a type holds come back unchanged") {
    std::vector<float> row(64);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i) - 31.5f;
    CHECK(round_trip(DType::f32, row) == row);
    CHECK(round_trip(DType::f16, row) == row);
    CHECK(round_trip(DType::bf16, row) == row);

    for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 32 * 8) - 121;
    row[0] = 127, row[32] = -127;  // d = 1
    CHECK(round_trip(DType::q8_0, row) == row);

    const float values[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6};
    for (int power = -120; power <= 120; ++power) {
        for (std::size_t i = 0; i < row.size(); ++i) row[i] = std::ldexp(values[i % 16], power);
        CHECK(round_trip(DType::mxfp4, row) == row);
    }
}

TEST_CASE("Q8_0 is within half a step") {
    const auto row = random_row(3200, 0.02f);
    const auto out = round_trip(DType::q8_0, row);
    for (std::size_t block = 0; block < row.size(); block += 32) {
        float largest = 0;
        for (std::size_t j = 0; j < 32; ++j) largest = std::fmax(largest, std::fabs(row[block + j]));
        // Half a step, and 127 times the rounding of d to FP16 (2^-11 of it, or half of 2^-24 where
        // subnormal).
        const double step = largest / 127.0;
        const double bound =
            step / 2 * (1 + 1e-5) + 127 * std::fmax(step * std::ldexp(1.0, -11), std::ldexp(1.0, -25));
        for (std::size_t j = 0; j < 32; ++j)
            CHECK(std::fabs(static_cast<double>(out[block + j]) - row[block + j]) <= bound);
    }
}

TEST_CASE("MXFP4 takes the nearest value of its scale") {
    const auto row = random_row(3200, 3.0f);
    const auto bytes = encode(DType::mxfp4, row);
    const auto out = round_trip(DType::mxfp4, row);
    for (std::size_t i = 0; i < row.size(); ++i) {
        const double scale = std::ldexp(1.0, std::to_integer<int>(bytes[i / 32 * 17]) - 127);
        for (const double magnitude : {0.0, .5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0})
            for (const double sign : {1.0, -1.0})
                CHECK(std::fabs(out[i] - static_cast<double>(row[i])) <=
                      std::fabs(sign * magnitude * scale - static_cast<double>(row[i])));
    }
}

TEST_CASE("amounts at the ends of the range") {
    const float tiny = std::numeric_limits<float>::denorm_min();
    std::vector<float> row(32, 0.0f);
    SECTION("MXFP4's scale stops at 2^-127") {
        row[3] = -std::ldexp(1.0f, -127);
        row[4] = tiny;
        const auto bytes = encode(DType::mxfp4, row);
        CHECK(bytes[0] == std::byte{0});
        CHECK(round_trip(DType::mxfp4, row)[3] == row[3]);
        CHECK(round_trip(DType::mxfp4, row)[4] == 0.0f);
    }
    SECTION("Q8_0's scale becomes zero") {
        row[3] = tiny;
        for (const std::byte byte : encode(DType::q8_0, row)) CHECK(byte == std::byte{0});
    }
    SECTION("the largest floats") {
        row[3] = std::numeric_limits<float>::max();
        row[4] = std::ldexp(1.0f, 127);
        const auto out = round_trip(DType::mxfp4, row);
        for (const float x : out) CHECK(std::isfinite(x));
        CHECK(out[4] == row[4]);
        CHECK_THROWS_AS(encode(DType::q8_0, row), Error);
        row[3] = row[4] = 8.3e6f;
        CHECK(std::isfinite(round_trip(DType::q8_0, row)[3]));
    }
}

TEST_CASE("what cannot be encoded is refused") {
    for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> row(64, 1.0f);
        row[40] = bad;
        CHECK_THROWS_AS(encode(DType::q8_0, row), Error);
        CHECK_THROWS_AS(encode(DType::mxfp4, row), Error);
    }
    CHECK_THROWS_AS(encode(DType::q8_0, std::vector<float>(33)), Error);
    CHECK_THROWS_AS(encode(DType::q4_k, std::vector<float>(256)), Error);
    try {
        encode(DType::q4_0, std::vector<float>(32));
        FAIL("Q4_0 was encoded");
    } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::invalid_request);
        CHECK(error.mismatch().found == "Q4_0");
    }
}
