// The search for scales that are not finite.
#include <cstdint>
#include <cstring>
#include <vector>

#include "catch.hpp"
#include "fixture.hpp"
#include "gg/format/validate.hpp"

using namespace gg;
using gg_test::scale_offsets;

namespace {

TensorView view(DType type, std::uint64_t row_length, std::uint64_t rows,
                const std::vector<unsigned char>& bytes) {
    TensorView tensor;
    tensor.name = "weight";
    tensor.type = type;
    tensor.dimensions = 2;
    tensor.shape = {row_length, rows, 1, 1};
    tensor.data = reinterpret_cast<const std::byte*>(bytes.data());
    return tensor;
}

}  // namespace

TEST_CASE("the first block with E8M0 255 is found") {
    std::vector<unsigned char> bytes(17 * 90, 255);  // quants may be 255
    for (std::size_t i = 0; i < 90; ++i) bytes[17 * i] = static_cast<unsigned char>(i == 5 ? 254 : i);
    CHECK_FALSE(format::find_invalid_block(view(DType::mxfp4, 960, 3, bytes)));
    bytes[17 * 89] = 255;
    CHECK(format::find_invalid_block(view(DType::mxfp4, 960, 3, bytes)) == 89u);
    bytes[17 * 31] = 255;
    CHECK(format::find_invalid_block(view(DType::mxfp4, 960, 3, bytes)) == 31u);
    bytes[0] = 255;
    CHECK(format::find_invalid_block(view(DType::mxfp4, 960, 3, bytes)) == 0u);
}

TEST_CASE("infinite and NaN scales are found in every format that has them") {
    for (const DTypeInfo& geometry : dtypes) {
        if (geometry.elements == 1 || geometry.type == DType::mxfp4) continue;
        INFO(geometry.name);
        // The largest finite scales; quants and packed scales may be anything.
        std::vector<unsigned char> bytes(geometry.bytes * 6, 255);
        const auto set_scale = [&](std::size_t block, std::size_t offset, unsigned half) {
            bytes[block * geometry.bytes + offset] = static_cast<unsigned char>(half);
            bytes[block * geometry.bytes + offset + 1] = static_cast<unsigned char>(half >> 8);
        };
        for (std::size_t block = 0; block < 6; ++block)
            for (const std::size_t offset : scale_offsets(geometry.type)) set_scale(block, offset, 0xfbff);
        const TensorView tensor = view(geometry.type, geometry.elements * 3, 2, bytes);
        CHECK_FALSE(format::find_invalid_block(tensor));
        for (const unsigned half : {0x7c00u, 0xfc00u, 0x7c01u, 0xffffu})
            for (const std::size_t offset : scale_offsets(geometry.type)) {
                set_scale(4, offset, half);
                CHECK(format::find_invalid_block(tensor) == 4u);
                set_scale(4, offset, 0x0001);
            }
        CHECK_FALSE(format::find_invalid_block(tensor));
    }
}

TEST_CASE("float tensors have no scales") {
    const std::vector<unsigned char> bytes(4 * 8, 255);
    CHECK_FALSE(format::find_invalid_block(view(DType::f32, 4, 2, bytes)));
    CHECK_FALSE(format::find_invalid_block(view(DType::bf16, 8, 2, bytes)));
}
