// Decoding of the block formats against the numpy decoders of the PyPI package gguf, bit for bit.
#include <algorithm>
#include <cctype>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "fixture.hpp"
#include "gg/format/visit.hpp"
#include "gg/format/x86.hpp"

using namespace gg;
using gg_test::Fixture;
using gg_test::scale_offsets;

namespace {

std::string fixture_name(DType type) {
    std::string name(info(type).name);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return static_cast<char>(std::tolower(c)); });
    return "decode_" + name + ".bin";
}

std::vector<DType> block_types() {
    std::vector<DType> types;
    for (const DTypeInfo& geometry : dtypes)
        if (geometry.elements > 1) types.push_back(geometry.type);
    return types;
}

Fixture fixture_of(DType type) {
    return Fixture::read(fixture_name(type), info(type).bytes, info(type).elements * sizeof(float));
}

/// Every chunk of the row, by decode_chunk, with the output in memory of its own.
template <class Target, class Format>
std::vector<float> decode_by_chunks(const Fixture& fixture) {
    const int chunks = static_cast<int>(fixture.blocks) * Format::elements / Format::chunk;
    std::vector<float> out;
    for (int i = 0; i < chunks; ++i) {
        std::vector<float> chunk(32);
        Format::template decode_chunk<Target>(fixture.first.data(), i, chunk.data());
        out.insert(out.end(), chunk.begin(), chunk.end());
    }
    return out;
}

#if defined(__x86_64__)
template <class Format>
__attribute__((target("avx2,fma,f16c"))) void avx2_chunk(const unsigned char* row, int index, float* out) {
    Format::template decode_chunk<format::Avx2>(row, index, out);
}

template <class Format>
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c"))) void avx512_chunk(
    const unsigned char* row, int index, float* out) {
    Format::template decode_chunk<format::Avx512>(row, index, out);
}

template <class Format>
std::vector<float> decode_with(void (*decode)(const unsigned char*, int, float*), const Fixture& fixture) {
    std::vector<float> out(fixture.blocks * Format::elements);
    for (std::size_t i = 0; i < out.size() / 32; ++i)
        decode(fixture.first.data(), static_cast<int>(i), out.data() + 32 * i);
    return out;
}
#endif

}  // namespace

TEST_CASE("every block format decodes to the reference's bits") {
    for (const DType type : block_types()) {
        INFO(info(type).name);
        const Fixture fixture = fixture_of(type);
        const std::vector<float> expected = gg_test::as_floats(fixture.second);
        std::vector<float> out(expected.size());
        format::decode_row(type, reinterpret_cast<const std::byte*>(fixture.first.data()), out.size(),
                           out.data());
        CHECK(gg_test::first_difference(out, expected) == expected.size());
    }
}

TEST_CASE("chunks of a row are the parts of its blocks") {
    for (const DType type : block_types()) {
        INFO(info(type).name);
        const Fixture fixture = fixture_of(type);
        const std::vector<float> expected = gg_test::as_floats(fixture.second);
        format::visit(type, [&](auto f) {
            const auto out = decode_by_chunks<format::Portable, decltype(f)>(fixture);
            CHECK(gg_test::first_difference(out, expected) == expected.size());
        });
    }
}

TEST_CASE("decoding compiled for AVX2 and for AVX-512 gives the same bits") {
#if defined(__x86_64__)
    // Every processor with AVX2 has F16C, which clang 14 cannot ask for.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (!avx2) GG_SKIP("this processor has no AVX2");
    for (const DType type : block_types()) {
        INFO(info(type).name);
        const Fixture fixture = fixture_of(type);
        const std::vector<float> expected = gg_test::as_floats(fixture.second);
        format::visit(type, [&](auto f) {
            using Format = decltype(f);
            CHECK(gg_test::first_difference(decode_with<Format>(avx2_chunk<Format>, fixture), expected) ==
                  expected.size());
            if (avx512)
                CHECK(gg_test::first_difference(decode_with<Format>(avx512_chunk<Format>, fixture),
                                                expected) == expected.size());
        });
    }
    if (!avx512) GG_SKIP("this processor has no AVX-512");
#else
    GG_SKIP("not an x86-64 processor");
#endif
}

TEST_CASE("a changed byte of a block changes its decoded elements") {
    for (const DType type : block_types()) {
        INFO(info(type).name);
        const Fixture fixture = fixture_of(type);
        const std::size_t bytes = info(type).bytes, elements = info(type).elements;
        const auto decode = [&](const std::vector<unsigned char>& block) {
            std::vector<float> out(elements);
            format::decode_row(type, reinterpret_cast<const std::byte*>(block.data()), elements, out.data());
            return out;
        };
        // Random quants with scales of 1, so that no contribution is lost in rounding.
        std::vector<unsigned char> block(fixture.first.end() - static_cast<std::ptrdiff_t>(bytes),
                                         fixture.first.end());
        for (const std::size_t offset : scale_offsets(type)) block[offset] = 0x00, block[offset + 1] = 0x3c;
        if (type == DType::mxfp4) block[0] = 127;
        const std::vector<float> before = decode(block);
        for (std::size_t i = 0; i < bytes; ++i) {
            INFO("byte " << i);
            std::vector<unsigned char> changed = block;
            changed[i] = static_cast<unsigned char>(changed[i] ^ 0x11);
            const std::vector<float> after = decode(changed);
            CHECK(gg_test::first_difference(before, after) != elements);
        }
    }
}

TEST_CASE("visit refuses a value that is no element type") {
    CHECK_THROWS_AS(format::visit(static_cast<DType>(99), [](auto) {}), Error);
}
