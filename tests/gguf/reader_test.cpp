// Typed access to metadata and tensors of correct files.
#include "raw.hpp"
#include "samples.hpp"
#include "temporary_folder.hpp"

using namespace gguf_test;
using gg::gguf::File;

TEST_CASE("versions 2 and 3 read alike") {
    for (std::uint32_t version : {2u, 3u}) {
        RawFile raw;
        raw.version = version;
        const auto bytes =
            raw.key("general.name", id_string, "small").tensor("w", {4, 2}, type_f32, 0).data(32).build();
        const File file = File::parse(bytes, "test.gguf");
        CHECK(file.version() == version);
        CHECK(file.name() == "test.gguf");
        CHECK(file.bytes() == bytes.size());
        CHECK(file.parts().empty());
        CHECK(file.get<std::string_view>("general.name") == "small");
        CHECK(gg::shape_text(file.require_tensor("w")) == "[4, 2]");
        CHECK(file.require_tensor("w").data == bytes.data() + bytes.size() - 32);
    }
}

TEST_CASE("a file without tensors, and one without anything, is read") {
    CHECK(File::parse(RawFile{}.key("a", id_u8, '\1').build(), "test.gguf").tensors().empty());
    CHECK(File::parse(RawFile{}.build(), "test.gguf").metadata().empty());
}

TEST_CASE("tensors may lie in any order, with gaps, the last without padding") {
    const auto bytes =
        RawFile{}.tensor("b", {5}, type_f32, 128).tensor("a", {3}, type_f32, 0).data(148).build();
    const File file = File::parse(bytes, "test.gguf");
    CHECK(file.tensors()[0].name == "b");
    CHECK(file.require_tensor("b").data - file.require_tensor("a").data == 128);
}

TEST_CASE("integers convert between widths if they fit") {
    const auto bytes =
        RawFile{}
            .key("u8", id_u8, '\x07')
            .key("i32", id_i32, -3)
            .key("u64", id_u64, std::uint64_t{1} << 32)
            .key("bool", id_bool, '\1')
            .key("f32", id_f32, 0.5f)
            .key("f64", 12, 0.1)
            .key("large", 12, 1e300)
            .key("text", id_string, "abc")
            .key("list", id_array, id_u64, std::uint64_t{2}, std::uint64_t{1}, std::uint64_t{1} << 31)
            .build();
    const File file = File::parse(bytes, "test.gguf");
    CHECK(file.get<std::uint32_t>("u8") == 7);
    CHECK(file.get<std::int32_t>("u8") == 7);
    CHECK(file.get<std::int32_t>("i32") == -3);
    CHECK(file.get<std::uint64_t>("u64") == std::uint64_t{1} << 32);
    CHECK(file.get<float>("f64") == 0.1f);
    CHECK(file.get<double>("f32") == 0.5);
    CHECK(file.get<bool>("bool"));
    CHECK(file.get<std::vector<std::uint32_t>>("list") == std::vector<std::uint32_t>{1, 1u << 31});
    CHECK_FALSE(file.get_if<std::uint32_t>("absent").has_value());

    const auto refused = [&file]<class T>(T, const std::string& key, const std::string& expected,
                                          const std::string& found) {
        check_refusal([&] { (void)file.get<T>(key); }, "test.gguf", "key " + key, expected, found);
        if (found != "no such key")
            check_refusal([&] { (void)file.get_if<T>(key); }, "test.gguf", "key " + key, expected, found);
    };
    SECTION("negative as unsigned") {
        refused(0u, "i32", "an integer from 0 to 4294967295", "i32 -3");
    }
    SECTION("too large") {
        refused(0u, "u64", "an integer from 0 to 4294967295", "u64 4294967296");
    }
    SECTION("float as integer") {
        refused(0u, "f32", "an integer", "f32 0.5");
    }
    SECTION("integer as float") {
        refused(0.0f, "u8", "a number of type f32 or f64", "u8 7");
    }
    SECTION("double beyond float") {
        refused(0.0f, "large", "f32", "f64 1e+300");
    }
    SECTION("bool as integer") {
        refused(0u, "bool", "an integer", "bool true");
    }
    SECTION("integer as bool") {
        refused(false, "u8", "a bool", "u8 7");
    }
    SECTION("string as bool") {
        refused(false, "text", "a bool", "string \"abc\"");
    }
    SECTION("integer as string") {
        refused(std::string_view(), "u8", "a string", "u8 7");
    }
    SECTION("array as scalar") {
        refused(0u, "list", "an integer", "array of 2 u64");
    }
    SECTION("scalar as array") {
        refused(std::vector<float>(), "f32", "an array, each element a number", "f32 0.5");
    }
    SECTION("an element that does not fit") {
        refused(std::vector<std::int32_t>(), "list", "an array, each element an integer from -2147483648",
                "array of 2 u64");
    }
    SECTION("missing") {
        refused(0u, "absent", "an integer", "no such key");
    }
    SECTION("missing tensor") {
        check_refusal([&] { (void)file.require_tensor("blk.0.w"); }, "test.gguf", "tensor blk.0.w",
                      "a tensor of this name", "none among 0 tensors");
    }
}

TEST_CASE("views stay valid when a File is moved") {
    TemporaryFolder folder;
    gg::gguf::Writer writer;
    set_every_value_type(writer);
    add_every_tensor_type(writer);
    writer.write(folder / "a.gguf");
    File file = File::open(folder / "a.gguf");
    const gg::TensorView before = file.require_tensor("Q4_1");
    const std::string_view text = file.get<std::string_view>("one.string");
    const File moved = std::move(file);
    CHECK(moved.require_tensor("Q4_1").data == before.data);
    CHECK(moved.get<std::string_view>("one.string").data() == text.data());
    REQUIRE(moved.parts().size() == 1);
    CHECK(moved.parts()[0].path == folder / "a.gguf");
    CHECK(moved.parts()[0].bytes.size() == moved.bytes());
}

TEST_CASE("what is not a file is refused by name") {
    TemporaryFolder folder;
    const auto refused = [](const std::filesystem::path& path, const std::string& expected,
                            const std::string& found) {
        check_refusal([&] { File::open(path); }, path.string(), "file", expected, found);
    };
    SECTION("missing") {
        refused(folder / "none.gguf", "a file that can be opened", "No such file");
    }
    SECTION("a folder") {
        refused(folder.path(), "a regular file", "a folder");
    }
    SECTION("a pipe, without waiting for a writer") {
        REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
        refused(folder / "pipe", "a regular file", "a device, pipe or socket");
    }
    SECTION("empty") {
        write_bytes(folder / "empty.gguf", {});
        check_refusal([&] { File::open(folder / "empty.gguf"); }, (folder / "empty.gguf").string(), "magic",
                      "4 bytes at offset 0", "the end of the file at 0");
    }
}
