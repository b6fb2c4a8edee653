// Tensors that must be refused: names, shapes, types, sizes, offsets.
#include "raw.hpp"

using namespace gguf_test;

TEST_CASE("a wrong tensor name is refused") {
    SECTION("empty") {
        check_refused(RawFile{}.tensor("", {4}, type_f32, 0).data(32), "tensor number 0: name",
                      "at least one byte", "an empty one");
    }
    SECTION("64 bytes") {
        check_refused(RawFile{}.tensor(std::string(64, 't'), {4}, type_f32, 0).data(32),
                      "tensor number 0: name", "a length of at most 63", "64");
    }
    SECTION("63 bytes are read") {
        const auto bytes = RawFile{}.tensor(std::string(63, 't'), {4}, type_f32, 0).data(32).build();
        CHECK(gg::gguf::File::parse(bytes, "test.gguf").tensor(std::string(63, 't')));
    }
    SECTION("NUL inside") {
        check_refused(RawFile{}.tensor(std::string("a\0b", 3), {4}, type_f32, 0).data(32),
                      "tensor number 0: name", "no NUL byte", "\"a\\x00b\"");
    }
    SECTION("twice") {
        check_refused(RawFile{}
                          .tensor("b", {4}, type_f32, 0)
                          .tensor("a", {4}, type_f32, 32)
                          .tensor("b", {4}, type_f32, 64)
                          .data(96),
                      "tensor b: name", "each name once", "positions 0 and 2");
    }
}

TEST_CASE("a wrong number of dimensions is refused") {
    const auto with_dimensions = [](std::uint32_t dimensions) {
        return RawFile{}.raw_tensor(bytes_of("t", dimensions, Bytes{std::vector<std::byte>(64)}));
    };
    for (std::uint32_t dimensions : {0u, 5u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
        SECTION(std::to_string(dimensions)) {
            check_refused(with_dimensions(dimensions), "tensor t: dimensions", "1 to 4",
                          std::to_string(dimensions));
        }
    }
}

TEST_CASE("a wrong dimension or a product that overflows is refused") {
    const std::string each = "every dimension from 1 to 1099511627776";
    const std::string size = "a tensor of at most 1125899906842624 bytes";
    const std::uint64_t huge = std::uint64_t{1} << 40;
    struct Case {
        std::vector<std::uint64_t> shape;
        std::string expected, found;
    };
    const Case cases[] = {
        {{0}, each, "[0]"},
        {{4, 0, 2}, each, "[4, 0, 2]"},
        {{two_to_63}, each, "[9223372036854775808]"},
        {{4, u64_max}, each, "[4, 18446744073709551615]"},
        {{huge + 1}, each, "[1099511627777]"},
        {{1, 1, 1, u64_max}, each, "[1, 1, 1, 18446744073709551615]"},
        {{std::uint64_t{1} << 31, std::uint64_t{1} << 31}, size, "[2147483648, 2147483648]"},
        {{std::uint64_t{1} << 32, std::uint64_t{1} << 32}, size, "[4294967296, 4294967296]"},
        {{huge, huge}, size, "[1099511627776, 1099511627776]"},
        {{huge, huge, huge, huge}, size, "[1099511627776, 1099511627776, 1099511627776, 1099511627776]"},
        {{4, std::uint64_t{1} << 20, std::uint64_t{1} << 40, 1}, size, "[4, 1048576, 1099511627776, 1]"},
        // The bytes come to exactly 2^64, and to 2^64 + 16: small numbers once they have wrapped.
        {{4, std::uint64_t{1} << 30, std::uint64_t{1} << 30}, size, "[4, 1073741824, 1073741824]"},
        {{4, (std::uint64_t{1} << 30) * 3 + 1, 1431655765}, size, "[4, 3221225473, 1431655765]"},
    };
    for (const Case& c : cases) {
        SECTION(c.found) {
            check_refused(RawFile{}.tensor("t", c.shape, type_f32, 0).data(32), "tensor t: shape", c.expected,
                          c.found);
        }
    }
}

TEST_CASE("a type that gg does not read is refused by its name") {
    const auto refused = [](std::uint32_t type, const std::string& found) {
        const gg::Mismatch mismatch = check_refused(RawFile{}.tensor("t", {256}, type, 0).data(512),
                                                    "tensor t: type", "a type that gg reads", found);
        for (const gg::DTypeInfo& known : gg::dtypes)
            CHECK(mismatch.next_step.find(known.name) != std::string::npos);
    };
    const std::pair<std::uint32_t, std::string> named[] = {{4, "Q4_2 (removed"},
                                                           {5, "Q4_3 (removed"},
                                                           {9, "Q8_1"},
                                                           {10, "Q2_K"},
                                                           {11, "Q3_K"},
                                                           {15, "Q8_K"},
                                                           {16, "IQ2_XXS"},
                                                           {17, "IQ2_XS"},
                                                           {18, "IQ3_XXS"},
                                                           {19, "IQ1_S"},
                                                           {21, "IQ3_S"},
                                                           {22, "IQ2_S"},
                                                           {23, "IQ4_XS"},
                                                           {24, "I8"},
                                                           {25, "I16"},
                                                           {26, "I32"},
                                                           {27, "I64"},
                                                           {28, "F64"},
                                                           {29, "IQ1_M"},
                                                           {31, "Q4_0_4_4 (removed"},
                                                           {32, "Q4_0_4_8 (removed"},
                                                           {33, "Q4_0_8_8 (removed"},
                                                           {34, "TQ1_0"},
                                                           {35, "TQ2_0"},
                                                           {36, "IQ4_NL_4_4 (removed"},
                                                           {37, "IQ4_NL_4_8"},
                                                           {38, "IQ4_NL_8_8"},
                                                           {40, "NVFP4"},
                                                           {41, "Q1_0"}};
    for (const auto& [id, name] : named) {
        SECTION(name) {
            refused(id, "type " + name);
        }
        SECTION(name + " and its id") {
            refused(id, "(id " + std::to_string(id) + ")");
        }
    }
    SECTION("unknown") {
        refused(77, "unknown type (id 77)");
    }
    SECTION("the greatest id") {
        refused(0xffffffff, "unknown type (id 4294967295)");
    }
    SECTION("type 4 in an old file of architecture gptoss: the cause is named") {
        const gg::Mismatch mismatch = check_refused(
            RawFile{}.key("general.architecture", id_string, "gptoss").tensor("t", {256}, 4, 0).data(512),
            "tensor t: type", "MXFP4 as type 39, in a file of architecture gpt-oss",
            "another runner's older converter");
        CHECK(mismatch.next_step.find("gpt-oss") != std::string::npos);
    }
}

TEST_CASE("a row that is no whole number of blocks is refused") {
    for (const gg::DTypeInfo& type : gg::dtypes) {
        if (type.elements == 1) continue;
        SECTION(std::string(type.name)) {
            const std::uint64_t row = type.elements + type.elements / 2;
            // Two rows of one and a half blocks would be three whole ones: still no row is.
            check_refused(
                RawFile{}.tensor("t", {row, 2}, static_cast<std::uint32_t>(type.type), 0).data(4096),
                "tensor t: shape", "rows of whole blocks of " + std::to_string(type.elements),
                "[" + std::to_string(row) + ", 2]");
        }
    }
}

TEST_CASE("an offset that is not aligned is refused") {
    SECTION("to the default of 32") {
        check_refused(RawFile{}.tensor("t", {4}, type_f32, 16).data(64), "tensor t: offset",
                      "a multiple of the alignment, 32", "16");
    }
    SECTION("to the file's own") {
        RawFile file;
        file.alignment = 64;
        file.key("general.alignment", id_u32, 64u).tensor("t", {4}, type_f32, 32).data(128);
        check_refused(file, "tensor t: offset", "a multiple of the alignment, 64", "32");
    }
}

TEST_CASE("data past the end of the file is refused") {
    const auto refused = [](std::vector<std::uint64_t> shape, std::uint64_t offset, std::uint64_t data,
                            const std::string& expected) {
        const gg::Mismatch mismatch =
            check_refused(RawFile{}.tensor("t", shape, type_f32, offset).data(data), "tensor t: offset",
                          expected, "them at " + std::to_string(offset));
        CHECK_FALSE(mismatch.next_step.empty());
    };
    SECTION("no data at all") {
        refused({4}, 0, 0, "16 bytes within the 0 bytes");
    }
    SECTION("one byte short") {
        refused({4}, 0, 15, "16 bytes within the 15 bytes");
    }
    SECTION("offset at the end") {
        refused({4}, 32, 32, "16 bytes within the 32 bytes");
    }
    SECTION("offset within, size past the end") {
        refused({16}, 32, 64, "64 bytes within the 64 bytes");
    }
    SECTION("offset far past the end") {
        refused({4}, std::uint64_t{1} << 40, 64, "16 bytes within the 64 bytes");
    }
    SECTION("offset plus size wraps to a small number") {
        refused({16}, u64_max - 31, 64, "64 bytes within the 64 bytes");
    }
    SECTION("data section's start plus offset wraps") {
        refused({4}, u64_max - 95, 64, "16 bytes within the 64");
    }
    SECTION("a size that wraps when padded") {
        refused({std::uint64_t{1} << 40, 256}, 0, 64, "1125899906842624 bytes within the 64 bytes");
    }
    SECTION("offset of the second tensor") {
        check_refused(RawFile{}.tensor("a", {8}, type_f32, 0).tensor("b", {8}, type_f32, 32).data(63),
                      "tensor b: offset", "32 bytes within the 63 bytes", "them at 32");
    }
}

TEST_CASE("tensors that overlap are refused") {
    SECTION("at the same place") {
        check_refused(RawFile{}.tensor("a", {8}, type_f32, 0).tensor("b", {8}, type_f32, 0).data(64),
                      "tensor b: offset", "at least 32, the end of tensor a", "0");
    }
    SECTION("by their ends, out of order") {
        check_refused(RawFile{}.tensor("a", {8}, type_f32, 32).tensor("b", {9}, type_f32, 0).data(64),
                      "tensor a: offset", "at least 36, the end of tensor b", "32");
    }
    SECTION("one inside the other") {
        check_refused(RawFile{}.tensor("a", {32}, type_f32, 0).tensor("b", {8}, type_f32, 64).data(128),
                      "tensor b: offset", "at least 128, the end of tensor a", "64");
    }
}
