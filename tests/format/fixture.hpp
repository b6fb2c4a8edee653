// Reads what tests/reference/formats.py writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "gg/core/device.hpp"
#include "gg/core/dtype.hpp"

namespace gg_test {

/// Two arrays behind a count of blocks: `first_bytes` bytes a block, then `second_bytes` bytes a block.
struct Fixture {
    std::size_t blocks = 0;
    std::vector<unsigned char> first;
    std::vector<unsigned char> second;

    static Fixture read(const std::string& name, std::size_t first_bytes, std::size_t second_bytes) {
        std::ifstream in(std::string(GG_TEST_DATA) + "/format/" + name, std::ios::binary);
        const std::vector<char> all{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
        std::uint32_t blocks = 0;
        if (all.size() >= 4) std::memcpy(&blocks, all.data(), 4);
        const std::size_t middle = 4 + blocks * first_bytes;
        if (blocks == 0 || all.size() != middle + blocks * second_bytes)
            throw std::runtime_error("fixture " + name + " is missing or has the wrong size");
        Fixture fixture;
        fixture.blocks = blocks;
        fixture.first.assign(all.begin() + 4, all.begin() + static_cast<std::ptrdiff_t>(middle));
        fixture.second.assign(all.begin() + static_cast<std::ptrdiff_t>(middle), all.end());
        return fixture;
    }
};

/// The bytes as floats.
inline std::vector<float> as_floats(const std::vector<unsigned char>& bytes) {
    std::vector<float> floats(bytes.size() / sizeof(float));
    std::memcpy(floats.data(), bytes.data(), bytes.size());
    return floats;
}

/// The index of the first element whose bits differ, or the length. -0 differs from 0, NaNs by their
/// fraction.
inline std::size_t first_difference(const std::vector<float>& a, const std::vector<float>& b) {
    std::size_t i = 0;
    while (i < a.size() && i < b.size() && gg::float_bits(a[i]) == gg::float_bits(b[i])) ++i;
    return a.size() == b.size() ? i : 0;
}

/// Where the FP16 scales of a type lie in its block.
inline std::vector<std::size_t> scale_offsets(gg::DType type) {
    switch (type) {
        case gg::DType::q4_1:
        case gg::DType::q5_1:
        case gg::DType::q4_k:
        case gg::DType::q5_k:
            return {0, 2};
        case gg::DType::q6_k:
            return {208};
        case gg::DType::mxfp4:
            return {};
        default:
            return {0};
    }
}

}  // namespace gg_test
