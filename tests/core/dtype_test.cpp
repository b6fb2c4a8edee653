// Element types by id and by name, their geometry, and the sizes of tensors made of them.
#include "gg/core/dtype.hpp"

#include <string>

#include "catch.hpp"
#include "gg/core/tensor.hpp"

TEST_CASE("types are found by GGUF's id and by name, with GGUF's geometry") {
    struct Row {
        std::uint32_t id;
        const char* name;
        std::uint32_t elements, bytes;
    };
    const Row rows[] = {{0, "F32", 1, 4},       {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},
                        {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},
                        {8, "Q8_0", 32, 34},    {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176},
                        {14, "Q6_K", 256, 210}, {20, "IQ4_NL", 32, 18}, {30, "BF16", 1, 2},
                        {39, "MXFP4", 32, 17}};
    CHECK(std::size(rows) == gg::dtypes.size());
    for (const Row& row : rows) {
        INFO(row.name);
        const gg::DTypeInfo* found = gg::find_dtype(row.id);
        REQUIRE(found != nullptr);
        CHECK(static_cast<std::uint32_t>(found->type) == row.id);
        CHECK(found->name == row.name);
        CHECK(found->elements == row.elements);
        CHECK(found->bytes == row.bytes);
        CHECK(gg::find_dtype(std::string_view(row.name)) == found);
        CHECK(&gg::info(found->type) == found);
    }
}

TEST_CASE("types that gg does not have are not found") {
    // Removed from GGUF (4, 5), not decoded here (10, 29), no type (38, 40, the largest id).
    for (const std::uint32_t id : {4u, 5u, 10u, 29u, 38u, 40u, 0xFFFFFFFFu})
        CHECK(gg::find_dtype(id) == nullptr);
    for (const char* name : {"", "f32", "F3", "F322", "Q4_K_M", "IQ2_XS"})
        CHECK(gg::find_dtype(std::string_view(name)) == nullptr);
}

TEST_CASE("a tensor's rows, elements and bytes follow from its type and shape") {
    const auto tensor = [](gg::DType type, int dimensions, std::array<std::uint64_t, 4> shape) {
        return gg::TensorView{"t", type, dimensions, shape, nullptr};
    };
    const gg::TensorView vector = tensor(gg::DType::f32, 1, {51, 1, 1, 1});
    CHECK(vector.row_length() == 51);
    CHECK(vector.rows() == 1);
    CHECK(vector.elements() == 51);
    CHECK(vector.row_bytes() == 204);
    CHECK(vector.bytes() == 204);
    CHECK(gg::shape_text(vector) == "[51]");

    const gg::TensorView experts = tensor(gg::DType::mxfp4, 3, {2880, 2880, 32, 1});
    CHECK(experts.row_bytes() == 1530);
    CHECK(experts.rows() == 2880 * 32);
    CHECK(experts.elements() == 265420800);
    CHECK(experts.bytes() == 141004800);
    CHECK(gg::shape_text(experts) == "[2880, 2880, 32]");

    const gg::TensorView four = tensor(gg::DType::q6_k, 4, {512, 2, 3, 5});
    CHECK(four.row_bytes() == 420);
    CHECK(four.rows() == 30);
    CHECK(four.bytes() == 12600);
    CHECK(gg::shape_text(four) == "[512, 2, 3, 5]");

    // More than 2^32 bytes.
    CHECK(tensor(gg::DType::bf16, 2, {1u << 20, 1u << 16, 1, 1}).bytes() == std::uint64_t{1} << 37);
}
