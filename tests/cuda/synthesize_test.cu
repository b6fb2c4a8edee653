// Random weights made block by block as a kernel does it: the bytes of the host's filler, whatever the part
// of the tensor. The same cases run on the host, one thread after the other, and on a GPU.
#include "gg/cuda/synthesize.cuh"

#include <cstring>
#include <vector>

#include "cuda/device.hpp"
#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/launch.hpp"
#include "gg/model/synthetic_fill.hpp"

using gg::DType;
using namespace gg::cuda;

namespace {

struct Case {
    DType type;
    std::uint64_t first, count;  ///< blocks
};

/// Starts within a counter's floats and a counter's scales, and at their ends; a few, and more than a block
/// of threads makes; a place beyond 2^32.
std::vector<Case> cases() {
    std::vector<Case> list;
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::mxfp4})
        for (const std::uint64_t first : {0ULL, 1ULL, 3ULL, 15ULL, 16ULL, 4099ULL, (1ULL << 34) + 2})
            for (const std::uint64_t count : {1ULL, 2ULL, 5ULL, 83ULL, 20001ULL})
                list.push_back({type, first, count});
    return list;
}

gg::SyntheticRecipe recipe_of(DType type) {
    return gg::synthetic_recipe({{.name = "t", .type = type}, 0.125, 0.37, 5}, 0x123456789ABCDEF);
}

std::vector<unsigned char> expected_bytes(const Case& c) {
    const gg::DTypeInfo& type = gg::info(c.type);
    std::vector<unsigned char> bytes(c.count * type.bytes);
    gg::fill_synthetic(recipe_of(c.type), c.first * type.elements, c.count * type.elements,
                       reinterpret_cast<std::byte*>(bytes.data()));
    return bytes;
}

/// The kernel, one thread after the other.
void synthesize_on_host(const SynthesizeArgs& args) {
    std::vector<unsigned> values(gg::synthetic_values);
    for (int i = 0; i < gg::synthetic_values; ++i)
        values[static_cast<std::size_t>(i)] = gg::synthetic_value(args.recipe, i);
    for (unsigned long long unit = 0; unit < synthesize_units(args); ++unit)
        if (args.recipe.type == 8 || args.recipe.type == 39)
            Synthesize::fill_block(args, unit);
        else
            Synthesize::fill_floats(args, unit, values.data());
}

}  // namespace

TEST_CASE("a thread's part of random weights has the host's bytes") {
    for (const Case& c : cases()) {
        CAPTURE(gg::info(c.type).name, c.first, c.count);
        const auto expected = expected_bytes(c);
        std::vector<unsigned> memory(expected.size() / 4 + 2, 0xA5A5A5A5u);  // aligned; a word to spare
        auto* out = reinterpret_cast<unsigned char*>(memory.data());
        const SynthesizeArgs args{recipe_of(c.type), c.first, c.count, out};
        synthesize_on_host(args);
        CHECK(std::memcmp(out, expected.data(), expected.size()) == 0);
        CHECK(out[expected.size()] == 0xA5);
        CHECK(synthesize_blocks(args) >= 1);
    }
    CHECK(synthesize_units({recipe_of(DType::f16), 3, 2, nullptr}) == 2);
    CHECK(synthesize_blocks({recipe_of(DType::f16), 3, 0, nullptr}) == 0);
    CHECK(synthesize_blocks({recipe_of(DType::q8_0), 0, std::uint64_t{1} << 40, nullptr}) == 4096);
}

TEST_CASE("random weights made on a GPU have the host's bytes") {
    GG_NEED_GPU();
    std::vector<Case> list = cases();
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::mxfp4})
        list.push_back({type, 7, 6000001});  // threads go round
    for (const Case& c : list) {
        CAPTURE(gg::info(c.type).name, c.first, c.count);
        const auto expected = expected_bytes(c);
        const cuda_test::DeviceArray<unsigned char> memory(
            std::vector<unsigned char>(expected.size() + 9, 0xA5));
        const SynthesizeArgs args{recipe_of(c.type), c.first, c.count, memory.data()};
        launch<Synthesize>(dim3(synthesize_blocks(args)), args, nullptr);
        const std::vector<unsigned char> found = memory.read();
        CHECK(std::memcmp(found.data(), expected.data(), expected.size()) == 0);
        for (std::size_t i = expected.size(); i < found.size(); ++i) CHECK(found[i] == 0xA5);
    }
}
