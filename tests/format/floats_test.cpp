// The float types, over all 65536 values of the 16-bit ones, against arithmetic in double.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "fixture.hpp"
#include "gg/format/encode_floats.hpp"
#include "gg/format/visit.hpp"
#include "gg/format/x86.hpp"

using namespace gg;

namespace {

/// The value of FP16 or BF16 bits by the definition.
double value_of(unsigned bits, int fraction_bits, int bias) {
    const int exponent_bits = 15 - fraction_bits;
    const int exponent = static_cast<int>(bits >> fraction_bits & ((1u << exponent_bits) - 1));
    const double fraction = bits & ((1u << fraction_bits) - 1);
    const double sign = bits & 0x8000 ? -1.0 : 1.0;
    if (exponent == (1 << exponent_bits) - 1)
        return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
    if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
    return sign * std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

bool same(float a, double b) {
    if (std::isnan(b)) return std::isnan(a);
    return float_bits(a) == float_bits(static_cast<float>(b));
}

#if defined(__x86_64__)
/// Counts the bits that Target::half decodes differently from Portable, NaNs apart.
template <class Target>
__attribute__((target("avx2,f16c"))) int count_half_differences() {
    int differences = 0;
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const bool nan = (bits & 0x7fff) > 0x7c00;
        const float a = Target::half(bits), b = format::half_to_float(bits);
        differences += nan ? !std::isnan(a) : float_bits(a) != float_bits(b);
    }
    return differences;
}
#endif

/// The nearest of the 16-bit values by search among all finite ones and infinity's threshold, ties to even.
template <int fraction_bits, int bias>
unsigned nearest(double x) {
    const unsigned infinity = ((1u << (15 - fraction_bits)) - 1) << fraction_bits;
    unsigned low = 0, high = infinity;
    const auto value = [&](unsigned bits) {
        return bits == infinity ? std::ldexp(1.0, (1 << (15 - fraction_bits)) - 1 - bias)
                                : value_of(bits, fraction_bits, bias);
    };
    const double magnitude = std::fabs(x);
    while (high - low > 1) {
        const unsigned middle = (low + high) / 2;
        (value(middle) <= magnitude ? low : high) = middle;
    }
    const double down = magnitude - value(low), up = value(high) - magnitude;
    const unsigned bits = down < up ? low : up < down ? high : low % 2 == 0 ? low : high;
    return bits | (std::signbit(x) ? 0x8000u : 0u);
}

}  // namespace

TEST_CASE("F16 decodes exactly, all 65536") {
    int wrong = 0;
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const unsigned char bytes[2] = {static_cast<unsigned char>(bits),
                                        static_cast<unsigned char>(bits >> 8)};
        float value;
        format::F16::decode(bytes, &value);
        wrong += !same(value, value_of(bits, 10, 15));
        // A NaN keeps its sign and fraction.
        if ((bits & 0x7fff) > 0x7c00)
            wrong += float_bits(value) != ((bits & 0x8000u) << 16 | 0x7f800000u | (bits & 0x3ffu) << 13);
    }
    CHECK(wrong == 0);
}

TEST_CASE("BF16 decodes exactly, all 65536") {
    int wrong = 0;
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const unsigned char bytes[2] = {static_cast<unsigned char>(bits),
                                        static_cast<unsigned char>(bits >> 8)};
        float value;
        format::BF16::decode(bytes, &value);
        wrong += !same(value, value_of(bits, 7, 127));
    }
    CHECK(wrong == 0);
}

TEST_CASE("the processor's FP16 conversion agrees with the portable one, all 65536") {
#if defined(__x86_64__)
    // Every processor with AVX2 has F16C, which clang 14 cannot ask for.
    if (!__builtin_cpu_supports("avx2")) GG_SKIP("this processor has no AVX2");
    CHECK(count_half_differences<format::Avx2>() == 0);
#else
    GG_SKIP("not an x86-64 processor");
#endif
}

TEST_CASE("chunks and tails of float rows") {
    std::vector<float> values(77);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.5f - 9;
    for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
        INFO(info(type).name);
        format::visit(type, [&](auto f) {
            using Format = decltype(f);
            if constexpr (Format::elements == 1) {
                // One byte in front, so that nothing is aligned, and no byte behind the row.
                std::vector<unsigned char> bytes(1 + values.size() * Format::bytes);
                for (std::size_t i = 0; i < values.size(); ++i) {
                    const std::uint32_t bits = type == DType::f32   ? float_bits(values[i])
                                               : type == DType::f16 ? format::float_to_half(values[i])
                                                                    : format::float_to_bfloat(values[i]);
                    std::memcpy(bytes.data() + 1 + i * Format::bytes, &bits, Format::bytes);
                }
                const unsigned char* row = bytes.data() + 1;
                std::vector<float> out(values.size());
                format::decode_row(type, reinterpret_cast<const std::byte*>(row), out.size(), out.data());
                CHECK(out == values);
                for (int i = 0; i < 2; ++i) {
                    std::vector<float> chunk(32);
                    Format::decode_chunk(row, i, chunk.data());
                    CHECK(std::equal(chunk.begin(), chunk.end(), values.begin() + 32 * i));
                }
                std::vector<float> tail(32, 5.0f);
                Format::decode_tail(row, 2, 13, tail.data());
                CHECK(std::equal(tail.begin(), tail.begin() + 13, values.begin() + 64));
                CHECK(std::count(tail.begin() + 13, tail.end(), 0.0f) == 19);
                std::vector<float> none(32, 5.0f);
                Format::decode_tail(row, 2, 0, none.data());
                CHECK(std::count(none.begin(), none.end(), 0.0f) == 32);
            }
        });
    }
}

TEST_CASE("F16 and BF16 round to the nearest, ties to even") {
    SECTION("values of their own come back") {
        int wrong = 0;
        for (unsigned bits = 0; bits < 0x10000; ++bits) {
            const float half = format::half_to_float(bits);
            if (!std::isnan(half)) wrong += format::float_to_half(half) != bits;
            const float bfloat = float_from_bits(bits << 16);
            if (!std::isnan(bfloat)) wrong += format::float_to_bfloat(bfloat) != bits;
        }
        CHECK(wrong == 0);
    }
    SECTION("between neighbours") {
        int wrong = 0;
        for (unsigned bits = 0; bits < 0x10000; ++bits) {
            if ((bits & 0x7fff) >= 0x7c00) continue;
            // Around the middle of this value and the next, and around the value.
            const double here = value_of(bits, 10, 15);
            const double next =
                (bits & 0x7fff) == 0x7bff ? std::copysign(65536.0, here) : value_of(bits + 1, 10, 15);
            const auto middle = static_cast<float>((here + next) / 2);
            const float exact = static_cast<float>(here);
            for (const float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f),
                                  std::nextafter(exact, -1e9f), std::nextafter(exact, 1e9f)})
                wrong += format::float_to_half(x) != nearest<10, 15>(x);
        }
        CHECK(wrong == 0);
        for (unsigned bits = 0; bits < 0x10000; ++bits) {
            if ((bits & 0x7fff) >= 0x7f80) continue;
            for (const unsigned low : {1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
                const float x = float_from_bits(bits << 16 | low);
                wrong += format::float_to_bfloat(x) != nearest<7, 127>(x);
            }
        }
        CHECK(wrong == 0);
    }
    SECTION("infinities and NaNs") {
        const float infinity = std::numeric_limits<float>::infinity();
        CHECK(format::float_to_half(infinity) == 0x7c00);
        CHECK(format::float_to_half(-infinity) == 0xfc00);
        CHECK(format::float_to_half(65519.99f) == 0x7bff);
        CHECK(format::float_to_half(65520.0f) == 0x7c00);
        CHECK(format::float_to_half(-3e38f) == 0xfc00);
        CHECK(format::float_to_bfloat(infinity) == 0x7f80);
        CHECK(format::float_to_bfloat(-infinity) == 0xff80);
        CHECK(format::float_to_bfloat(std::numeric_limits<float>::max()) == 0x7f80);
        // The lowest bit of a signalling NaN's fraction would be lost, and the NaN would become an infinity.
        for (const unsigned bits : {0x7f800001u, 0xff800001u, 0x7fc00000u, 0x7fffffffu}) {
            CHECK(std::isnan(format::half_to_float(format::float_to_half(float_from_bits(bits)))));
            CHECK(std::isnan(float_from_bits(
                static_cast<unsigned>(format::float_to_bfloat(float_from_bits(bits))) << 16)));
        }
    }
}
