// Models in several files: opened by the first, refused by name when a part is missing or is not theirs.
#include "raw.hpp"
#include "samples.hpp"
#include "temporary_folder.hpp"

using namespace gguf_test;
using gg::gguf::File;

namespace {

struct PartSpec {
    std::uint16_t number = 0, count = 3;
    std::int32_t tensors = 4;
    std::vector<std::string> names;
    std::string architecture = {};  // written if not empty
};

std::vector<std::byte> part(const PartSpec& spec) {
    gg::gguf::Writer writer;
    if (!spec.architecture.empty()) writer.set("general.architecture", spec.architecture);
    writer.set("split.no", spec.number);
    writer.set("split.count", spec.count);
    writer.set("split.tensors.count", spec.tensors);
    for (const std::string& name : spec.names)
        writer.add_tensor(name, gg::DType::f32, {8}, counting_bytes(32));
    return writer.bytes();
}

/// Three parts on disk: two tensors, one, one.
struct Model {
    TemporaryFolder folder;
    std::filesystem::path paths[3] = {folder / "m-00001-of-00003.gguf", folder / "m-00002-of-00003.gguf",
                                      folder / "m-00003-of-00003.gguf"};
    Model() {
        write_bytes(paths[0], part({.number = 0, .names = {"a", "b"}, .architecture = "llama"}));
        write_bytes(paths[1], part({.number = 1, .names = {"c"}}));
        write_bytes(paths[2], part({.number = 2, .names = {"d"}}));
    }
    gg::Mismatch refused(const std::filesystem::path& file, const std::string& field,
                         const std::string& expected, const std::string& found) {
        return check_refusal([&] { File::open(paths[0]); }, file.string(), field, expected, found);
    }
};

}  // namespace

TEST_CASE("the first part opens all") {
    Model model;
    const File file = File::open(model.paths[0]);
    std::string names;
    for (const gg::TensorView& tensor : file.tensors()) {
        names += tensor.name;
        CHECK(static_cast<int>(tensor.data[31]) == 31);
    }
    CHECK(names == "abcd");
    CHECK(file.tensor("d"));
    CHECK(file.get<std::string_view>("general.architecture") == "llama");
    REQUIRE(file.parts().size() == 3);
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(file.parts()[i].path == model.paths[i]);
        bytes += std::filesystem::file_size(model.paths[i]);
    }
    CHECK(file.bytes() == bytes);
}

TEST_CASE("a later part is refused and the first one named") {
    Model model;
    const gg::Mismatch mismatch = check_refusal([&] { File::open(model.paths[1]); }, model.paths[1].string(),
                                                "key split.no", "0, the first part", "1");
    CHECK(mismatch.next_step.find(model.paths[0].string()) != std::string::npos);
}

TEST_CASE("a missing part is refused by name") {
    Model model;
    for (std::size_t i : {1u, 2u}) {
        SECTION("part " + std::to_string(i + 1)) {
            std::filesystem::remove(model.paths[i]);
            model.refused(model.paths[i], "part " + std::to_string(i + 1) + " of 3",
                          "the file beside " + model.paths[0].string(), "no such file");
        }
    }
}

TEST_CASE("a part that is not the model's is refused by name") {
    Model model;
    const auto& second = model.paths[1];
    SECTION("another part under its name") {
        std::filesystem::copy_file(model.paths[2], second, std::filesystem::copy_options::overwrite_existing);
        model.refused(second, "key split.no", "1", "2");
    }
    SECTION("the first part once more") {
        std::filesystem::copy_file(model.paths[0], second, std::filesystem::copy_options::overwrite_existing);
        model.refused(second, "key split.no", "1", "0");
    }
    SECTION("of a model in another number of parts") {
        write_bytes(second, part({.number = 1, .count = 4, .names = {"c"}}));
        model.refused(second, "key split.count", "3", "4");
    }
    SECTION("of a model with another number of tensors") {
        write_bytes(second, part({.number = 1, .tensors = 5, .names = {"c"}}));
        model.refused(second, "key split.tensors.count", "4", "5");
    }
    SECTION("of another architecture") {
        write_bytes(second, part({.number = 1, .names = {"c"}, .architecture = "gpt2"}));
        model.refused(second, "key general.architecture", "string \"llama\"", "string \"gpt2\"");
    }
    SECTION("with a tensor that an earlier part has") {
        write_bytes(second, part({.number = 1, .names = {"a"}}));
        model.refused(second, "tensor a: name", "each name in one part", "an earlier part");
    }
    SECTION("not split at all") {
        write_bytes(second, gg::gguf::Writer().bytes());
        model.refused(second, "key split.count", "3", "1");
    }
    SECTION("not a GGUF file") {
        write_bytes(second, counting_bytes(100));
        model.refused(second, "magic", "GGUF", "\\x00\\x01\\x02\\x03");
    }
    SECTION("cut short") {
        std::filesystem::resize_file(second, std::filesystem::file_size(second) - 1);
        model.refused(second, "tensor c: offset", "32 bytes within the 31 bytes", "them at 0");
    }
}

TEST_CASE("parts that hold another number of tensors than they say are refused") {
    Model model;
    for (const int wrong : {3, 5}) {
        SECTION(std::to_string(wrong)) {
            write_bytes(model.paths[0], part({.number = 0, .tensors = wrong, .names = {"a", "b"}}));
            write_bytes(model.paths[1], part({.number = 1, .tensors = wrong, .names = {"c"}}));
            write_bytes(model.paths[2], part({.number = 2, .tensors = wrong, .names = {"d"}}));
            model.refused(model.paths[0], "key split.tensors.count", "4, the tensors in its 3 parts",
                          std::to_string(wrong));
        }
    }
}

TEST_CASE("split keys that cannot be are refused") {
    Model model;
    const auto& first = model.paths[0];
    SECTION("number not below the count") {
        write_bytes(first, part({.number = 3, .names = {"a", "b"}}));
        model.refused(first, "key split.no", "less than split.count, 3", "3");
    }
    SECTION("a negative number of tensors") {
        write_bytes(first, part({.tensors = -1, .names = {"a", "b"}}));
        model.refused(first, "key split.tensors.count", "an integer from 0", "i32 -1");
    }
    SECTION("a count of the wrong type") {
        gg::gguf::Writer writer;
        writer.set("split.count", "3");
        write_bytes(first, writer.bytes());
        model.refused(first, "key split.count", "an integer from 0", "string \"3\"");
    }
    SECTION("a name that is not the part's") {
        const auto renamed = model.folder / "model.gguf";
        std::filesystem::copy_file(first, renamed);
        check_refusal([&] { File::open(renamed); }, renamed.string(), "file name",
                      "a name ending in -00001-of-00003.gguf", "model.gguf");
    }
}

TEST_CASE("a file that was split once and is whole again opens under any name") {
    TemporaryFolder folder;
    for (std::uint16_t count : {0, 1}) {
        write_bytes(folder / "joined.gguf",
                    part({.number = 0, .count = count, .tensors = 2, .names = {"a", "b"}}));
        CHECK(File::open(folder / "joined.gguf").tensors().size() == 2);
    }
    // Requantized files keep the keys with zeros in all of them.
    write_bytes(folder / "joined.gguf", part({.number = 0, .count = 0, .tensors = 0, .names = {"a", "b"}}));
    CHECK(File::open(folder / "joined.gguf").tensors().size() == 2);
}
