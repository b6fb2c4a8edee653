// Encoding against the PyPI package gguf, bit for bit, and by its properties.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
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

TEST_CASE("blocks of 32 encode to the reference's bytes") {
    const std::pair<DType, const char*> fixtures[] = {
        {DType::q8_0, "encode_q8_0.bin"}, {DType::mxfp4, "encode_mxfp4.bin"},
        {DType::q4_0, "encode_q4_0.bin"}, {DType::q4_1, "encode_q4_1.bin"},
        {DType::q5_0, "encode_q5_0.bin"}, {DType::q5_1, "encode_q5_1.bin"}};
    for (const auto& [type, file] : fixtures) {
        INFO(info(type).name);
        const Fixture fixture = Fixture::read(file, 32 * sizeof(float), info(type).bytes);
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

TEST_CASE("values that the 4- and 5-bit types hold come back unchanged") {
    for (int power = -14; power <= 10; ++power) {
        INFO("power " << power);
        std::vector<float> row(64);
        const auto fill = [&](int codes, int first) {
            for (int i = 0; i < 64; ++i)
                row[static_cast<std::size_t>(i)] =
                    std::ldexp(static_cast<float>((i * 7 + i / 32) % codes + first), power);
        };
        fill(16, -8);
        CHECK(round_trip(DType::q4_0, row) == row);
        fill(16, -7);  // with the sign of d reversed: +8 is code 0
        CHECK(round_trip(DType::q4_0, row) == row);
        fill(32, -16);
        CHECK(round_trip(DType::q5_0, row) == row);
        fill(16, -3);
        CHECK(round_trip(DType::q4_1, row) == row);
        fill(32, 5);
        CHECK(round_trip(DType::q5_1, row) == row);
    }
}

TEST_CASE("the 4- and 5-bit types are within half a step, and a whole one at the clipped end") {
    const auto row = random_row(32 * 300, 0.02f);
    for (const DType type : {DType::q4_0, DType::q5_0, DType::q4_1, DType::q5_1}) {
        INFO(info(type).name);
        const bool five_bits = type == DType::q5_0 || type == DType::q5_1;
        const bool symmetric = type == DType::q4_0 || type == DType::q5_0;
        const auto out = round_trip(type, row);
        for (std::size_t block = 0; block < row.size(); block += 32) {
            const float* x = row.data() + block;
            const double least = *std::min_element(x, x + 32), greatest = *std::max_element(x, x + 32);
            const double extreme = std::fmax(-least, greatest);
            const double step =
                symmetric ? extreme / (five_bits ? 16 : 8) : (greatest - least) / (five_bits ? 31 : 15);
            // FP16 rounds d and m by 2^-11 of them, or half of 2^-24 where subnormal.
            const double rounding = std::ldexp(greatest - least + extreme, -11) + 33 * std::ldexp(1.0, -25);
            for (std::size_t j = 0; j < 32; ++j) {
                const double error = std::fabs(static_cast<double>(out[block + j]) - x[j]);
                const bool clipped = symmetric && std::fabs(x[j]) > extreme - step;
                CHECK(error <= (clipped ? step : step / 2) * (1 + 1e-5) + rounding);
            }
        }
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
    std::vector<DType> blocks;
    for (const DTypeInfo& type : dtypes)
        if (type.elements > 1 && type.type != DType::iq4_nl) blocks.push_back(type.type);
    CHECK(blocks.size() == 9);
    const auto message_of = [](DType type, const std::vector<float>& row) {
        try {
            encode(type, row);
        } catch (const Error& error) {
            CHECK(error.code() == ErrorCode::invalid_request);
            return std::string(error.what());
        }
        return std::string();
    };
    for (const DType type : blocks) {
        INFO(info(type).name);
        const float infinity = std::numeric_limits<float>::infinity();
        for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
            std::vector<float> row(512, 1.0f);
            row[300] = bad;
            CHECK(message_of(type, row).find("element 300") != std::string::npos);
        }
        CHECK(message_of(type, std::vector<float>(33)).find("33") != std::string::npos);
        if (type == DType::mxfp4) continue;  // every float has a scale
        for (const float large : {3.0e8f, -3.0e38f, std::numeric_limits<float>::max()}) {
            std::vector<float> row(256, 1.0f);
            row[77] = large;
            CHECK(message_of(type, row).find("FP16") != std::string::npos);
            row[78] = -large;
            CHECK(message_of(type, row).find("FP16") != std::string::npos);
        }
    }
    CHECK(message_of(DType::iq4_nl, std::vector<float>(32)).find("IQ4_NL") != std::string::npos);
}
