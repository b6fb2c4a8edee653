// Q4_K, Q5_K and Q6_K encoding by its properties: error bounds, the plain encoding as the floor of quality,
// exact values, and the ends of the range.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "catch.hpp"
#include "gg/format/encode.hpp"
#include "gg/format/visit.hpp"

using namespace gg;

namespace {

constexpr DType types[] = {DType::q4_k, DType::q5_k, DType::q6_k};

std::vector<std::byte> encode(DType type, const std::vector<float>& row) {
    std::vector<std::byte> bytes(row.size() / info(type).elements * info(type).bytes);
    format::encode_row(type, row.data(), row.size(), bytes.data());
    return bytes;
}

std::vector<float> decode(DType type, const std::vector<std::byte>& bytes) {
    std::vector<float> out(bytes.size() / info(type).bytes * info(type).elements);
    format::decode_row(type, bytes.data(), out.size(), out.data());
    return out;
}

std::vector<float> round_trip(DType type, const std::vector<float>& row) {
    return decode(type, encode(type, row));
}

std::vector<float> random_row(std::size_t elements, float scale, float mean = 0) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal(mean, scale);
    std::vector<float> row(elements);
    for (float& x : row) x = normal(random);
    return row;
}

double squared_error(const float* x, const float* y) {
    double sum = 0;
    for (int j = 0; j < 256; ++j) sum += std::pow(static_cast<double>(x[j]) - y[j], 2);
    return sum;
}

double relative_error(DType type, const std::vector<float>& row) {
    const auto out = round_trip(type, row);
    double error = 0, square = 0;
    for (std::size_t i = 0; i < row.size(); i += 256) error += squared_error(&row[i], &out[i]);
    for (const float x : row) square += static_cast<double>(x) * x;
    return std::sqrt(error / square);
}

float rounded_half(float value) {
    return format::half_to_float(format::float_to_half(value));
}

/// What an encoder without any search makes of a block: scales from the extremes, each rounded once.
std::vector<float> plain_round_trip(DType type, const float* x) {
    std::vector<float> out(256);
    const int part_length = type == DType::q6_k ? 16 : 32, parts = 256 / part_length;
    std::vector<float> scale(static_cast<std::size_t>(parts)), minimum(scale);
    for (int part = 0; part < parts; ++part) {
        const float* first = x + part * part_length;
        const auto p = static_cast<std::size_t>(part);
        if (type == DType::q6_k) {
            scale[p] = *std::max_element(first, first + 16, [](float a, float b) {
                return std::fabs(a) < std::fabs(b);
            }) / -32;
        } else {
            minimum[p] = -std::fmin(0.0f, *std::min_element(first, first + 32));
            scale[p] = (*std::max_element(first, first + 32) + minimum[p]) / (type == DType::q4_k ? 15 : 31);
        }
    }
    const auto wider = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    const float most = *std::max_element(scale.begin(), scale.end(), wider);
    const float d = rounded_half(type == DType::q6_k ? most / -128 : most / 63);
    const float dmin = rounded_half(*std::max_element(minimum.begin(), minimum.end()) / 63);
    for (int j = 0; j < 256; ++j) {
        const auto p = static_cast<std::size_t>(j / part_length);
        const float least = type == DType::q6_k ? -128.0f : 0.0f,
                    greatest = type == DType::q6_k ? 127.0f : 63.0f;
        const float s = d * std::clamp(std::round(scale[p] / d), least, greatest);
        const float m = dmin > 0 ? dmin * std::clamp(std::round(minimum[p] / dmin), 0.0f, 63.0f) : 0;
        const float low = type == DType::q6_k ? -32.0f : 0.0f;
        const float high = type == DType::q4_k ? 15.0f : 31.0f;
        const float q = s != 0 ? std::clamp(std::round((x[j] + m) / s), low, high) : 0;
        out[static_cast<std::size_t>(j)] = s * q - m;
    }
    return out;
}

}  // namespace

TEST_CASE("the search is never worse than the plain encoding, block by block") {
    for (const DType type : types) {
        INFO(info(type).name);
        for (const float mean : {0.0f, 0.05f, -0.3f}) {
            const auto row = random_row(256 * 400, 0.02f, mean);
            const auto out = round_trip(type, row);
            double searched = 0, plain = 0;
            for (std::size_t i = 0; i < row.size(); i += 256) {
                const double floor = squared_error(&row[i], plain_round_trip(type, &row[i]).data());
                const double error = squared_error(&row[i], &out[i]);
                // Float decoding rounds, by 2^-24 of numbers up to twice the largest.
                CHECK(error <= floor * (1 + 1e-4));
                searched += error;
                plain += floor;
            }
            CHECK(searched < 0.95 * plain);
        }
    }
}

TEST_CASE("the error on normal data is that of the format") {
    const auto row = random_row(256 * 1000, 0.02f);
    // Relative RMS errors; 0.07137, 0.03613 and 0.01778 are those of llama.cpp's encoder on such data.
    CHECK(relative_error(DType::q4_k, row) < 0.0705);
    CHECK(relative_error(DType::q5_k, row) < 0.0350);
    CHECK(relative_error(DType::q6_k, row) < 0.0171);
    // Scales are relative: the same at another magnitude.
    const auto large = random_row(256 * 1000, 1000.0f);
    CHECK(relative_error(DType::q4_k, large) < 0.0705);
}

TEST_CASE("the error of a block is within the bound of its scales") {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (const DType type : types) {
        INFO(info(type).name);
        for (int trial = 0; trial < 300; ++trial) {
            // Parts of very different magnitude, outliers, and offsets of both signs.
            std::vector<float> row(256);
            for (std::size_t j = 0; j < 256; ++j) {
                const float part =
                    std::ldexp(1.0f, static_cast<int>(j / 32 * 5 + static_cast<unsigned>(trial)) % 11 - 5);
                row[j] = part * (normal(random) + static_cast<float>(trial % 7 - 3));
                if (random() % 97 == 0) row[j] *= 12;
            }
            const auto out = round_trip(type, row);
            double bound = 0, most_scale = 0, most_minimum = 0;
            const std::size_t length = type == DType::q6_k ? 16 : 32;
            const double top = type == DType::q4_k ? 15 : 31;
            for (const bool measuring : {true, false})
                for (std::size_t i = 0; i < 256; i += length) {
                    const double least = std::fmin(0.0f, *std::min_element(&row[i], &row[i] + length));
                    const double greatest = std::fmax(0.0f, *std::max_element(&row[i], &row[i] + length));
                    const bool k6 = type == DType::q6_k;
                    const double scale = k6 ? std::fmax(-least, greatest) / 32 : (greatest - least) / top;
                    if (measuring) {
                        most_scale = std::fmax(most_scale, scale);
                        most_minimum = std::fmax(most_minimum, -least);
                        continue;
                    }
                    // Half a step (a whole one at the end that Q6_K's 31 clips), half a step of the scale
                    // times the largest code, half a step of the minimum, and FP16's rounding of d and dmin.
                    // The last is for a scale of +128, of which Q6_K has only 127.
                    const double error = k6 ? scale + 32 * (most_scale / 256 + scale / 128)
                                            : scale / 2 + top * most_scale / 126 + most_minimum / 126;
                    const double rounding = std::ldexp(33 * scale + most_minimum, -10);
                    bound += static_cast<double>(length) * std::pow(error + rounding, 2);
                }
            CHECK(squared_error(row.data(), out.data()) <= bound);
        }
    }
}

TEST_CASE("values that a K-quant holds come back unchanged") {
    std::mt19937 random(23);
    for (int trial = 0; trial < 100; ++trial) {
        const float d = rounded_half(std::ldexp(1.0f + static_cast<float>(random() % 1000) / 1024, -9));
        const float dmin = rounded_half(std::ldexp(1.0f + static_cast<float>(random() % 1000) / 1024, -8));
        for (const DType type : types) {
            INFO(info(type).name << ", trial " << trial);
            const bool k6 = type == DType::q6_k;
            const int length = k6 ? 16 : 32;
            const int top = type == DType::q4_k ? 15 : 31;
            std::vector<float> row;
            for (int part = 0; part < 256 / length; ++part) {
                // One part has the largest scale and minimum, and each part its extreme codes.
                const int scale = k6 ? (part == 3 ? -128 : static_cast<int>(random() % 90) + 20)
                                     : (part == 3 ? 63 : static_cast<int>(random() % 63) + 1);
                const int minimum = part == 5 ? 63 : static_cast<int>(random() % 64);
                for (int j = 0; j < length; ++j) {
                    int q =
                        static_cast<int>(random() % static_cast<unsigned>(k6 ? 64 : top + 1)) - (k6 ? 32 : 0);
                    if (j == 4) q = k6 ? -32 : 0;
                    if (j == 9) q = k6 ? 31 : top;
                    const float step = d * static_cast<float>(scale);
                    row.push_back(k6 ? step * static_cast<float>(q)
                                     : step * static_cast<float>(q) - dmin * static_cast<float>(minimum));
                }
            }
            CHECK(round_trip(type, row) == row);
        }
    }
}

TEST_CASE("blocks of one value") {
    for (const DType type : types) {
        INFO(info(type).name);
        const std::vector<std::byte> zeros = encode(type, std::vector<float>(256));
        CHECK(std::all_of(zeros.begin(), zeros.end(), [](std::byte b) { return b == std::byte{0}; }));
        CHECK(encode(type, std::vector<float>(256, -0.0f)) == zeros);
        // FP16 d is within 2^-11 of itself, or half of 2^-24 where subnormal, times the largest codes.
        const float subnormal = (type == DType::q6_k   ? 4096
                                 : type == DType::q5_k ? 63 * 31
                                                       : 63 * 15) *
                                0x1p-25f;
        for (const float value : {1.0f, -1.0f, 0.3f, -0.3f, 1e-3f, -4000.0f, 60000.0f})
            for (const float x : round_trip(type, std::vector<float>(256, value)))
                CHECK(std::fabs(x - value) <= std::fabs(value) * 0x1p-10f + subnormal);
        // One element of many.
        std::vector<float> single(256);
        single[100] = -2.5f;
        const auto out = round_trip(type, single);
        for (std::size_t j = 0; j < 256; ++j) CHECK(std::fabs(out[j] - single[j]) <= 2.5f * 0x1p-10f);
    }
}

TEST_CASE("K-quants at the ends of the range") {
    for (const DType type : types) {
        INFO(info(type).name);
        SECTION("vanishing amounts become zero, and never NaN") {
            for (int power = -149; power <= -10; ++power) {
                INFO("power " << power);
                const auto row = random_row(256, std::ldexp(1.0f, power));
                const auto out = round_trip(type, row);
                double square = 0;
                for (const float x : row) square += static_cast<double>(x) * x;
                // Never worse than zeros.
                CHECK(squared_error(row.data(), out.data()) <= square * (1 + 1e-6));
            }
        }
        SECTION("a part far smaller than the others") {
            auto row = random_row(256, 1.0f);
            for (std::size_t j = 32; j < 64; ++j) row[j] *= 1e-38f;
            for (const float x : round_trip(type, row)) CHECK(std::isfinite(x));
        }
        SECTION("the largest magnitudes") {
            const float limit = type == DType::q6_k ? 128.0f * 32.0f * 65504.0f : 63.0f * 65504.0f;
            auto row = random_row(256, limit / 8);
            for (float& x : row) x = std::clamp(x, -limit, limit);
            row[9] = -limit, row[10] = limit;
            const auto out = round_trip(type, row);
            CHECK(std::fabs(out[9] + limit) < 0.1f * limit);
            CHECK(squared_error(row.data(), out.data()) <=
                  squared_error(row.data(), plain_round_trip(type, row.data()).data()) * (1 + 1e-4));
            row[9] = std::nextafter(-limit, -std::numeric_limits<float>::max());
            CHECK_THROWS_AS(encode(type, row), Error);
        }
    }
}
