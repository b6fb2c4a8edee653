// Metadata that must be refused: strings, keys, value types, arrays, bools, alignment.
#include "raw.hpp"

using namespace gguf_test;

TEST_CASE("a string that is longer than it can be is refused") {
    const std::string room = "a length of at most ";
    const auto padding = Bytes{std::vector<std::byte>(100)};
    SECTION("key longer than the bytes left") {
        check_refused(RawFile{}.raw_key(bytes_of(std::uint64_t{101}, padding)), "key number 0: name",
                      room + "100 (the bytes left)", "101");
    }
    SECTION("key of 2^64-1 bytes") {
        check_refused(RawFile{}.raw_key(bytes_of(u64_max, padding)), "key number 0: name", room + "100",
                      "18446744073709551615");
    }
    SECTION("key so long that position plus length wraps") {
        check_refused(RawFile{}.raw_key(bytes_of(u64_max - 31, padding)), "key number 0: name", room + "100",
                      std::to_string(u64_max - 31));
    }
    SECTION("key over the cap") {
        check_refused(RawFile{}.key(std::string(65536, 'k'), id_u32, 1u), "key number 0: name",
                      room + "65535", "65536");
    }
    SECTION("value longer than the bytes left") {
        check_refused(RawFile{}.key("k", id_string, std::uint64_t{101}, padding), "key k: value",
                      room + "100", "101");
    }
    SECTION("value of 2^64-1 bytes") {
        check_refused(RawFile{}.key("k", id_string, u64_max, padding), "key k: value", room + "100",
                      "18446744073709551615");
    }
    SECTION("value over the cap") {
        check_refused(RawFile{}.key("k", id_string, std::string((16u << 20) + 1, 'v')), "key k: value",
                      room + "16777216", "16777217");
    }
    SECTION("value at the cap is read") {
        const auto bytes = RawFile{}.key("k", id_string, std::string(16u << 20, 'v')).build();
        CHECK(gg::gguf::File::parse(bytes, "test.gguf").get<std::string_view>("k").size() == 16u << 20);
    }
    SECTION("string in an array longer than the bytes left") {
        check_refused(
            RawFile{}.key("k", id_array, id_string, std::uint64_t{2}, "x", std::uint64_t{101}, padding),
            "key k: string in the array", room + "100", "101");
    }
    SECTION("string in an array of 2^64-1 bytes") {
        check_refused(RawFile{}.key("k", id_array, id_string, std::uint64_t{2}, "x", u64_max, padding),
                      "key k: string in the array", room + "100", "18446744073709551615");
    }
    SECTION("tensor name of 2^64-1 bytes") {
        check_refused(RawFile{}.raw_tensor(bytes_of(u64_max, padding)), "tensor number 0: name", room + "100",
                      "18446744073709551615");
    }
}

TEST_CASE("an empty, repeated or broken key is refused") {
    SECTION("empty") {
        check_refused(RawFile{}.key("first", id_u32, 1u).key("", id_u32, 1u), "key number 1: name",
                      "at least one byte", "an empty one");
    }
    SECTION("twice") {
        check_refused(RawFile{}.key("b", id_u32, 1u).key("a", id_u32, 2u).key("b", id_string, "x"),
                      "key b: name", "each name once", "positions 0 and 2");
    }
    SECTION("NUL inside") {
        check_refused(RawFile{}.key(std::string("a\0b", 3), id_u32, 1u), "key number 0: name", "no NUL byte",
                      "\"a\\x00b\"");
    }
}

TEST_CASE("an unknown value type is refused") {
    const auto padding = Bytes{std::vector<std::byte>(64)};
    for (std::uint32_t type : {13u, 255u, 0x80000000u, 0xffffffffu}) {
        SECTION("of a value: " + std::to_string(type)) {
            check_refused(RawFile{}.key("k", type, padding), "key k: value type", "a type from 0 to 12",
                          std::to_string(type));
        }
        SECTION("of an array's elements: " + std::to_string(type)) {
            check_refused(RawFile{}.key("k", id_array, type, std::uint64_t{1}, padding),
                          "key k: element type", "a type from 0 to 12", std::to_string(type));
        }
    }
}

TEST_CASE("an array that cannot be is refused") {
    const auto padding = Bytes{std::vector<std::byte>(64)};
    SECTION("array of arrays") {
        check_refused(
            RawFile{}.key("k", id_array, id_array, std::uint64_t{1}, id_u8, std::uint64_t{1}, padding),
            "key k: element type", "a scalar or a string", "an array of arrays");
    }
    struct Case {
        std::uint32_t type;
        std::uint64_t count;
        std::string room;
    };
    const Case cases[] = {
        {id_u8, u64_max, "64"},    {id_u8, 65, "64"},       {id_u32, std::uint64_t{1} << 62, "16"},
        {id_u32, two_to_63, "16"}, {id_u32, 17, "16"},      {id_u64, (std::uint64_t{1} << 61) + 1, "8"},
        {id_u64, u64_max, "8"},    {id_string, 9, "8"},     {id_string, std::uint64_t{1} << 61, "8"},
        {id_string, u64_max, "8"}, {id_bool, u64_max, "64"}};
    for (const Case& c : cases) {
        SECTION("type " + std::to_string(c.type) + ", " + std::to_string(c.count) + " elements") {
            check_refused(RawFile{}.key("k", id_array, c.type, c.count, padding), "key k: array length",
                          "at most " + c.room + " (what the bytes left can hold)", std::to_string(c.count));
        }
    }
    SECTION("strings that end with the file") {
        check_refused(RawFile{}.key("k", id_array, id_string, std::uint64_t{8}, std::string(57, 'x')),
                      "key k: string in the array", "8 bytes at", "the end of the file");
    }
}

TEST_CASE("a bool other than 0 or 1 is refused") {
    SECTION("alone") {
        check_refused(RawFile{}.key("k", id_bool, '\2'), "key k: value", "a bool, 0 or 1", "2");
    }
    SECTION("255") {
        check_refused(RawFile{}.key("k", id_bool, '\xff'), "key k: value", "a bool, 0 or 1", "255");
    }
    SECTION("in an array") {
        check_refused(RawFile{}.key("k", id_array, id_bool, std::uint64_t{3}, '\1', '\0', '\3'),
                      "key k: value", "a bool, 0 or 1", "3");
    }
}

TEST_CASE("a wrong general.alignment is refused") {
    const std::string field = "key general.alignment";
    const std::string expected = "a power of two from 8 to 1048576";
    for (std::uint32_t alignment : {0u, 1u, 4u, 24u, 33u, 0x80000000u, 0xffffffffu, 1u << 21}) {
        SECTION(std::to_string(alignment)) {
            check_refused(RawFile{}.key("general.alignment", id_u32, alignment), field, expected,
                          std::to_string(alignment));
        }
    }
    SECTION("a u64") {
        check_refused(RawFile{}.key("general.alignment", id_u64, std::uint64_t{32}), field, "u32", "u64 32");
    }
    SECTION("an i32") {
        check_refused(RawFile{}.key("general.alignment", id_i32, 32), field, "u32", "i32 32");
    }
    SECTION("a string") {
        check_refused(RawFile{}.key("general.alignment", id_string, "32"), field, "u32", "string \"32\"");
    }
    SECTION("an array") {
        check_refused(RawFile{}.key("general.alignment", id_array, id_u32, std::uint64_t{1}, 32u), field,
                      "u32", "array of 1 u32");
    }
}
