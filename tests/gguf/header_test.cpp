// Headers that must be refused: short files, magic, version, byte order, counts.
#include "raw.hpp"

using namespace gguf_test;

namespace {

/// One key of each kind and one tensor, its data ending with the file.
std::vector<std::byte> whole_file() {
    return RawFile{}
        .key("a.number", id_u32, 7u)
        .key("a.text", id_string, "text")
        .key("an.array", id_array, id_string, std::uint64_t{2}, "x", "yz")
        .key("flags", id_array, id_bool, std::uint64_t{3}, '\1', '\0', '\1')
        .tensor("weight", {4, 2}, type_f32, 0)
        .data(32)
        .build();
}

}  // namespace

TEST_CASE("a file shorter than its header is refused at the field that is cut") {
    const std::vector<std::byte> whole = whole_file();
    const auto cut = [&](std::size_t bytes, const std::string& field, const std::string& expected) {
        check_refused({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes)}, field, expected,
                      "the end of the file at " + std::to_string(bytes));
    };
    SECTION("empty") {
        cut(0, "magic", "4 bytes at offset 0");
    }
    SECTION("inside the magic") {
        cut(3, "magic", "4 bytes at offset 0");
    }
    SECTION("after the magic") {
        cut(4, "version", "4 bytes at offset 4");
    }
    SECTION("after the version") {
        cut(8, "tensor count", "8 bytes at offset 8");
    }
    SECTION("after the tensor count") {
        cut(16, "key count", "8 bytes at offset 16");
    }
    SECTION("one byte short") {
        cut(23, "key count", "8 bytes at offset 16");
    }
    SECTION("nothing after the header") {
        check_refused({whole.begin(), whole.begin() + 24}, "tensor count",
                      "at most 0 (what the bytes left can hold)", "1");
    }
}

TEST_CASE("a file cut at any byte is refused") {
    const std::vector<std::byte> whole = whole_file();
    REQUIRE_NOTHROW(gg::gguf::File::parse(whole, "whole"));
    for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
        CAPTURE(bytes);
        const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes));
        const gg::Mismatch mismatch = refusal([&] { gg::gguf::File::parse(cut, "cut.gguf"); });
        CHECK(mismatch.file == "cut.gguf");
        CHECK_FALSE(mismatch.field.empty());
        CHECK_FALSE(mismatch.expected.empty());
        CHECK_FALSE(mismatch.found.empty());
    }
}

TEST_CASE("each field of an entry is named when the file ends before it") {
    // The claimed counts must fit into the bytes left, so padding after the cut is not possible: a second
    // entry that is cut follows a whole one which is long enough to make room.
    const std::string filler(100, 'x');
    const auto second_key = [&](const Bytes& start) {
        return RawFile{}.key("filler", id_string, filler).raw_key(start).build();
    };
    const std::string at_end = "the end of the file at ";
    SECTION("key length") {
        check_refused(second_key(bytes_of(0u)), "key number 1: name", "8 bytes at", at_end);
    }
    SECTION("key") {
        check_refused(second_key(bytes_of(std::uint64_t{5})), "key number 1: name", "a length of at most 0",
                      "5");
    }
    SECTION("value type") {
        check_refused(second_key(bytes_of("k")), "key k: value type", "4 bytes at", at_end);
    }
    SECTION("value") {
        check_refused(second_key(bytes_of("k", id_u64, 0u)), "key k: value", "8 bytes at", at_end);
    }
    SECTION("element type") {
        check_refused(second_key(bytes_of("k", id_array)), "key k: element type", "4 bytes at", at_end);
    }
    SECTION("array length") {
        check_refused(second_key(bytes_of("k", id_array, id_u32)), "key k: array length", "8 bytes at",
                      at_end);
    }
    const auto second_tensor = [&](const Bytes& start) {
        return RawFile{}.tensor(std::string(63, 't'), {4, 1, 1, 1}, type_f32, 0).raw_tensor(start).build();
    };
    const std::uint64_t one = 1;
    SECTION("tensor name") {
        check_refused(second_tensor(bytes_of(0u)), "tensor number 1: name", "8 bytes at", at_end);
    }
    SECTION("dimensions") {
        check_refused(second_tensor(bytes_of("t")), "tensor t: dimensions", "4 bytes", at_end);
    }
    SECTION("shape") {
        check_refused(second_tensor(bytes_of("t", 2u, one)), "tensor t: shape", "8 bytes", at_end);
    }
    SECTION("type") {
        check_refused(second_tensor(bytes_of("t", 1u, one)), "tensor t: type", "4 bytes", at_end);
    }
    SECTION("offset") {
        check_refused(second_tensor(bytes_of("t", 1u, one, type_f32)), "tensor t: offset", "8 bytes", at_end);
    }
}

TEST_CASE("a wrong magic, version or byte order is refused") {
    RawFile file;
    SECTION("magic of another format") {
        file.magic = "ggml";
        check_refused(file, "magic", "\"GGUF\"", "\"ggml\"");
    }
    SECTION("magic of bytes that cannot be printed") {
        file.magic = std::string("PK\x03\x04", 4);
        check_refused(file, "magic", "\"GGUF\"", "\"PK\\x03\\x04\"");
    }
    SECTION("version 0") {
        file.version = 0;
        check_refused(file, "version", "2 or 3", "0");
    }
    SECTION("version 1, by name") {
        file.version = 1;
        check_refused(file, "version", "2 or 3", "1, an early form");
    }
    SECTION("version 4") {
        file.version = 4;
        check_refused(file, "version", "2 or 3", "4");
    }
    SECTION("the greatest version") {
        file.version = 0xffffffff;
        check_refused(file, "version", "2 or 3", "4294967295");
    }
    SECTION("big-endian version 3, by name") {
        file.version = 0x03000000;
        const gg::Mismatch mismatch =
            check_refused(file, "byte order", "a little-endian file", "a big-endian one (version 50331648)");
        CHECK(mismatch.next_step.find("little-endian") != std::string::npos);
    }
    SECTION("magic in the other byte order") {
        file.magic = "FUGG";
        check_refused(file, "byte order", "a little-endian file", "a big-endian one (magic \"FUGG\")");
    }
}

TEST_CASE("counts that cannot be true are refused before anything is allocated") {
    RawFile file;
    file.key("filler", id_string, std::string(1000, 'x'));
    const std::uint64_t wrong[] = {u64_max, two_to_63, two_to_63 - 1, std::uint64_t{1} << 61, 100};
    for (std::uint64_t count : wrong) {
        SECTION("tensors: " + std::to_string(count)) {
            file.tensor_count = count;
            check_refused(file, "tensor count", "at most 31 (what the bytes left can hold)",
                          std::to_string(count));
        }
        SECTION("keys: " + std::to_string(count)) {
            file.key_count = count;
            check_refused(file, "key count", "at most 73 (what the bytes left can hold)",
                          std::to_string(count));
        }
    }
    SECTION("a count within a large file, yet beyond any model") {
        file.key("large", id_array, id_u8, std::uint64_t{16} << 20, Bytes{std::vector<std::byte>(16u << 20)});
        file.key_count = (1u << 20) + 1;
        check_refused(file, "key count", "at most 1048576", "1048577");
    }
    SECTION("one key more than there is") {
        file.key_count = 2;
        check_refused(file, "key number 1: name", "8 bytes at", "the end of the file");
    }
}
