// How far does each format round? Prints a table: bits per weight, and the root mean square of the rounding
// error, relative to that of the data, for independent normal and Laplace numbers (2^22 of each, fixed seed).
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/format/encode.hpp"
#include "gg/format/visit.hpp"

namespace {

constexpr std::size_t count = std::size_t{1} << 22;
constexpr std::size_t row = 4096;

/// Independent numbers with mean 0 and variance 1. Made of the generator's own bits: distributions of the
/// standard library differ between implementations.
std::vector<float> random_numbers(bool laplace) {
    std::mt19937_64 random(1);
    const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
    std::vector<float> values(count);
    for (float& value : values) {
        const double u = uniform(), v = uniform();
        const double normal = std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
        const double exponential = (v < 0.5 ? 1 : -1) * std::log(u) * std::sqrt(0.5);
        value = static_cast<float>(laplace ? exponential : normal);
    }
    return values;
}

/// Root mean square of (decoded - value), relative to that of the values.
double relative_error(gg::DType type, const std::vector<float>& values) {
    const gg::DTypeInfo& geometry = gg::info(type);
    std::vector<std::byte> bytes(row / geometry.elements * geometry.bytes);
    std::vector<float> decoded(row);
    double errors = 0, squares = 0;
    for (std::size_t at = 0; at < values.size(); at += row) {
        gg::format::encode_row(type, &values[at], row, bytes.data());
        gg::format::decode_row(type, bytes.data(), row, decoded.data());
        for (std::size_t i = 0; i < row; ++i) {
            const double value = values[at + i], error = decoded[i] - value;
            errors += error * error;
            squares += value * value;
        }
    }
    return std::sqrt(errors / squares);
}

}  // namespace

int main() {
    using gg::DType;
    try {
        const std::vector<float> normal = random_numbers(false), laplace = random_numbers(true);
        std::printf("| format | bits per weight | normal, %% | Laplace, %% |\n|---|---:|---:|---:|\n");
        for (const DType type : {DType::bf16, DType::f16, DType::q8_0, DType::q6_k, DType::q5_k, DType::q5_1,
                                 DType::q5_0, DType::q4_k, DType::q4_1, DType::q4_0, DType::mxfp4}) {
            const gg::DTypeInfo& geometry = gg::info(type);
            std::printf("| %s | %.4g | %.3g | %.3g |\n", std::string(geometry.name).c_str(),
                        8.0 * static_cast<double>(geometry.bytes) / static_cast<double>(geometry.elements),
                        100 * relative_error(type, normal), 100 * relative_error(type, laplace));
        }
    } catch (const gg::Error& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
