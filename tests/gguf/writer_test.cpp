// What the writer writes, the reader reads back; what the reader would refuse, the writer refuses.
#include "gg/gguf/writer.hpp"

#include <sys/stat.h>

#include "raw.hpp"
#include "samples.hpp"
#include "temporary_folder.hpp"

using namespace gguf_test;
using gg::gguf::File;
using gg::gguf::ValueType;
using gg::gguf::Writer;

namespace {

std::vector<std::string> names_in(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        names.push_back(entry.path().filename().string());
    return names;
}

template <class Action>
void check_rejected(Action&& action, const std::string& field, const std::string& expected) {
    try {
        action();
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::invalid_request);
        CHECK(error.mismatch().field == field);
        CAPTURE(error.what());
        CHECK(error.mismatch().expected.find(expected) != std::string::npos);
        CHECK_FALSE(error.mismatch().found.empty());
        return;
    }
    FAIL("it was not rejected");
}

}  // namespace

TEST_CASE("every value type comes back as it was written") {
    Writer writer;
    set_every_value_type(writer);
    const std::vector<std::byte> bytes = writer.bytes();
    const File file = File::parse(bytes, "test.gguf");
    CHECK(file.version() == 3);
    REQUIRE(file.metadata().size() == 26);
    const auto both = [&file]<class T>(const std::string& name, ValueType type, const T& low, const T& high) {
        CAPTURE(name);
        const gg::gguf::Value* one = file.find("one." + name);
        const gg::gguf::Value* many = file.find("many." + name);
        REQUIRE(one);
        REQUIRE(many);
        CHECK(one->type() == type);
        CHECK(one->count() == 1);
        CHECK(many->type() == ValueType::array);
        CHECK(many->element_type() == type);
        CHECK(many->count() == 2);
        CHECK(one->as<T>() == high);
        CHECK(many->as<std::vector<T>>() == std::vector<T>{low, high});
    };
    both("u8", ValueType::u8, std::uint8_t{0}, std::uint8_t{255});
    both("i8", ValueType::i8, std::int8_t{-128}, std::int8_t{127});
    both("u16", ValueType::u16, std::uint16_t{0}, std::uint16_t{65535});
    both("i16", ValueType::i16, std::int16_t{-32768}, std::int16_t{32767});
    both("u32", ValueType::u32, std::uint32_t{0}, std::uint32_t{4294967295});
    both("i32", ValueType::i32, INT32_MIN, INT32_MAX);
    both("u64", ValueType::u64, std::uint64_t{0}, std::uint64_t{UINT64_MAX});
    both("i64", ValueType::i64, std::int64_t{INT64_MIN}, std::int64_t{INT64_MAX});
    both("f32", ValueType::f32, -0.1f, 3.25f);
    both("f64", ValueType::f64, -0.1, 1e300);
    both("bool", ValueType::boolean, false, true);
    both("string", ValueType::string, std::string_view(), std::string_view("\xce\xb1\xce\xb2 text"));
    CHECK(file.get<std::vector<std::uint32_t>>("none.u32").empty());
    CHECK(file.get<std::vector<std::string_view>>("none.string").empty());
}

TEST_CASE("every tensor type comes back as it was written") {
    TemporaryFolder folder;
    const auto path = folder / "tensors.gguf";
    Writer writer;
    add_every_tensor_type(writer);
    writer.write(path);
    const File file = File::open(path);
    CHECK(file.bytes() == std::filesystem::file_size(path));
    REQUIRE(file.tensors().size() == gg::dtypes.size());
    for (std::size_t i = 0; i < gg::dtypes.size(); ++i) {
        const gg::DTypeInfo& type = gg::dtypes[i];
        CAPTURE(type.name);
        const gg::TensorView& tensor = file.require_tensor(type.name);
        CHECK(&tensor == &file.tensors()[i]);
        CHECK(tensor.type == type.type);
        CHECK(tensor.dimensions == 2);
        CHECK(tensor.shape == std::array<std::uint64_t, 4>{type.elements * 2, 2, 1, 1});
        const std::vector<std::byte> written = counting_bytes(type.bytes * 4);
        REQUIRE(tensor.bytes() == written.size());
        CHECK(std::equal(written.begin(), written.end(), tensor.data));
        CHECK(reinterpret_cast<std::uintptr_t>(tensor.data) % 32 == 0);
    }
}

TEST_CASE("tensors are written from spans, callbacks and open files") {
    const std::vector<float> numbers = {1, 2, 3, 4, 5, 6};
    Writer writer;
    writer.set("general.alignment", std::uint32_t{64});
    writer.add_tensor("span", gg::DType::f32, {3, 2}, std::as_bytes(std::span(numbers)));
    writer.add_tensor("streamed", gg::DType::f32, {2, 1, 3}, [&numbers](const gg::gguf::ByteSink& sink) {
        for (const float& number : numbers) sink(std::as_bytes(std::span(&number, 1)));
    });
    const std::vector<std::byte> first = writer.bytes();
    const File source = File::parse(first, "first");
    Writer copy;
    for (const gg::gguf::Entry& entry : source.metadata()) copy.set(entry.key, entry.value);
    for (const gg::TensorView& tensor : source.tensors()) copy.add_tensor(tensor);
    const std::vector<std::byte> second = copy.bytes();
    CHECK(first == second);
    const File file = File::parse(second, "second");
    CHECK(file.alignment() == 64);
    for (const char* name : {"span", "streamed"}) {
        const gg::TensorView& tensor = file.require_tensor(name);
        CHECK((tensor.data - second.data()) % 64 == 0);
        REQUIRE(tensor.bytes() == 24);
        CHECK(std::memcmp(tensor.data, numbers.data(), 24) == 0);
    }
    CHECK(file.tensor("streamed")->dimensions == 3);
}

TEST_CASE("every value copies from file to file unchanged") {
    Writer writer, copy;
    set_every_value_type(writer);
    const std::vector<std::byte> bytes = writer.bytes();
    const File file = File::parse(bytes, "test.gguf");
    for (const gg::gguf::Entry& entry : file.metadata()) copy.set(entry.key, entry.value);
    CHECK(copy.bytes() == bytes);
}

TEST_CASE("a key that is set again keeps its place") {
    Writer writer;
    writer.set("a", 1);
    writer.set("b", 2);
    writer.set("a", "text");
    const std::vector<std::byte> bytes = writer.bytes();
    const File file = File::parse(bytes, "test.gguf");
    REQUIRE(file.metadata().size() == 2);
    CHECK(file.metadata()[0].key == "a");
    CHECK(file.get<std::string_view>("a") == "text");
}

TEST_CASE("a file appears complete or not at all") {
    TemporaryFolder folder;
    const auto path = folder / "model.gguf";
    write_bytes(path, counting_bytes(3));
    Writer writer;
    const std::vector<std::uint64_t> shape = {1u << 20};
    SECTION("a source that fails leaves the old file and nothing else") {
        writer.add_tensor("t", gg::DType::f32, shape, [](const gg::gguf::ByteSink& sink) {
            sink(counting_bytes(3u << 20));
            throw std::runtime_error("source failed");
        });
        CHECK_THROWS_AS(writer.write(path), std::runtime_error);
        CHECK(std::filesystem::file_size(path) == 3);
    }
    SECTION("a source that gives too little") {
        writer.add_tensor("t", gg::DType::f32, shape,
                          [](const gg::gguf::ByteSink& sink) { sink(counting_bytes(8)); });
        check_rejected([&] { writer.write(path); }, "tensor t: data", "4194304 bytes");
        CHECK(std::filesystem::file_size(path) == 3);
    }
    SECTION("a source that gives too much") {
        writer.add_tensor("t", gg::DType::f32, shape,
                          [](const gg::gguf::ByteSink& sink) { sink(counting_bytes((4u << 20) + 1)); });
        check_rejected([&] { writer.write(path); }, "tensor t: data", "4194304 bytes");
        CHECK(std::filesystem::file_size(path) == 3);
    }
    SECTION("success replaces the old file, readable as any new file is") {
        writer.add_tensor("t", gg::DType::f32, shape,
                          [](const gg::gguf::ByteSink& sink) { sink(counting_bytes(4u << 20)); });
        writer.write(path);
        CHECK(File::open(path).require_tensor("t").bytes() == 4u << 20);
        struct stat written {
        }, ordinary{};
        write_bytes(folder / "ordinary", counting_bytes(1));
        REQUIRE(::stat(path.c_str(), &written) == 0);
        REQUIRE(::stat((folder / "ordinary").c_str(), &ordinary) == 0);
        CHECK(written.st_mode == ordinary.st_mode);
        std::filesystem::remove(folder / "ordinary");
    }
    CHECK(names_in(folder.path()) == std::vector<std::string>{"model.gguf"});
}

TEST_CASE("a folder that is not there is named") {
    TemporaryFolder folder;
    const auto path = folder / "missing/model.gguf";
    try {
        Writer().write(path);
        FAIL("it was written");
    } catch (const gg::Error& error) {
        CHECK(error.mismatch().file == path.string());
        CHECK(error.mismatch().found.find("No such file") != std::string::npos);
    }
}

TEST_CASE("the writer rejects what the reader would refuse") {
    Writer writer;
    const auto add = [&writer](const std::string& name, gg::DType type, std::vector<std::uint64_t> shape,
                               std::size_t bytes) {
        return [=, &writer] { writer.add_tensor(name, type, shape, counting_bytes(bytes)); };
    };
    using gg::DType;
    SECTION("empty key") {
        check_rejected([&] { writer.set("", 1); }, "key: name", "1 to 65535");
    }
    SECTION("NUL in a key") {
        check_rejected([&] { writer.set(std::string("a\0", 2), 1); }, "key a\\x00: name", "without NUL");
    }
    SECTION("empty name") {
        check_rejected(add("", DType::f32, {1}, 4), "tensor: name", "1 to 63");
    }
    SECTION("long name") {
        check_rejected(add(std::string(64, 't'), DType::f32, {1}, 4),
                       "tensor " + std::string(64, 't') + ": name", "1 to 63");
    }
    SECTION("second of a name") {
        add("t", DType::f32, {1}, 4)();
        check_rejected(add("t", DType::f32, {1}, 4), "tensor t: name", "each name once");
    }
    SECTION("no dimension") {
        check_rejected(add("t", DType::f32, {}, 4), "tensor t: dimensions", "1 to 4");
    }
    SECTION("five") {
        check_rejected(add("t", DType::f32, {1, 1, 1, 1, 1}, 4), "tensor t: dimensions", "1 to 4");
    }
    SECTION("zero") {
        check_rejected(add("t", DType::f32, {4, 0}, 0), "tensor t: shape", "every dimension");
    }
    SECTION("half a block") {
        check_rejected(add("t", DType::q8_0, {48}, 51), "tensor t: shape", "whole blocks");
    }
    SECTION("too few bytes") {
        check_rejected(add("t", DType::f32, {4}, 15), "tensor t: data", "16 bytes");
    }
    SECTION("alignment") {
        writer.set("general.alignment", 24u);
        check_rejected([&] { writer.bytes(); }, "key general.alignment", "power of two");
    }
    SECTION("alignment of another type") {
        writer.set("general.alignment", std::uint64_t{32});
        check_rejected([&] { writer.bytes(); }, "key general.alignment", "a u32");
    }
}
