// Files that change while they are mapped.
#include "gg/gguf/mapped_file.hpp"

#include <signal.h>
#include <sys/wait.h>

#include <cstring>

#include "raw.hpp"
#include "samples.hpp"
#include "temporary_folder.hpp"

using namespace gguf_test;
using gg::gguf::File;
using gg::gguf::MappedFile;

namespace {

void write_model(const std::filesystem::path& path) {
    gg::gguf::Writer writer;
    writer.add_tensor("t", gg::DType::f32, {1u << 18}, counting_bytes(1u << 20));
    writer.write(path);
}

/// What the runner's handler does, too: says which file it was, with nothing but write and _exit.
void report_fault(int, siginfo_t* info, void*) {
    const std::string_view file = gg::gguf::describe_fault(info->si_addr);
    const ssize_t written = ::write(STDERR_FILENO, file.data(), file.size());
    ::_exit(written == static_cast<ssize_t>(file.size()) && !file.empty() ? 1 : 99);
}

/// Runs in a child: reads a model that is cut off after it was opened.
void read_truncated(const std::filesystem::path& path) {
    struct sigaction action {};
    action.sa_sigaction = report_fault;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGBUS, &action, nullptr);
    const File file = File::open(path);
    std::filesystem::resize_file(path, 4096);
    const gg::TensorView& tensor = file.tensors()[0];
    volatile unsigned sum = 0;
    for (std::uint64_t i = 0; i < tensor.bytes(); ++i) sum = sum + static_cast<unsigned>(tensor.data[i]);
}

}  // namespace

TEST_CASE("a file that changed its size while mapped is refused by name") {
    TemporaryFolder folder;
    const auto path = folder / "model.gguf";
    write_model(path);
    const File file = File::open(path);
    const std::uint64_t whole = file.bytes();
    REQUIRE_NOTHROW(file.require_whole());
    for (const std::uint64_t size : {std::uint64_t{4096}, whole - 1, whole + 1}) {
        std::filesystem::resize_file(path, size);
        check_refusal([&] { file.require_whole(); }, path.string(), "file size",
                      std::to_string(whole) + " bytes", std::to_string(size) + " bytes");
    }
    std::filesystem::resize_file(path, whole);
    CHECK_NOTHROW(file.require_whole());
}

TEST_CASE("bytes are read past the mapping, and of a file that was cut short refused by name") {
    TemporaryFolder folder;
    const auto path = folder / "model.gguf";
    write_model(path);
    const File file = File::open(path);
    const gg::TensorView& tensor = file.tensors()[0];
    std::vector<std::byte> bytes(1000);
    for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{4097}, tensor.bytes() - bytes.size()}) {
        file.read(tensor.data + first, bytes.size(), bytes.data());
        CHECK(std::memcmp(bytes.data(), tensor.data + first, bytes.size()) == 0);
    }
    const std::uint64_t whole = file.bytes();
    std::filesystem::resize_file(path, 8192);
    check_refusal([&] { file.read(tensor.data + tensor.bytes() - 1000, bytes.size(), bytes.data()); },
                  path.string(), "file size", std::to_string(whole) + " bytes", "8192 bytes");

    const std::vector<std::byte> memory = counting_bytes(1 << 10);
    gg::gguf::Writer writer;
    writer.add_tensor("t", gg::DType::f32, {1u << 8}, memory);
    const std::vector<std::byte> whole_file = writer.bytes();
    CHECK(writer.file_bytes() == whole_file.size());
    const std::vector<std::byte> header = writer.header();
    CHECK(std::memcmp(header.data(), whole_file.data(), header.size()) == 0);
    const File parsed = File::parse(whole_file, "memory");
    CHECK(parsed.tensors()[0].data == whole_file.data() + header.size());
    parsed.read(parsed.tensors()[0].data + 24, bytes.size(), bytes.data());
    CHECK(std::memcmp(bytes.data(), memory.data() + 24, bytes.size()) == 0);
}

TEST_CASE("the part of a split model that changed is the one that is named") {
    TemporaryFolder folder;
    for (std::uint16_t number : {0, 1}) {
        gg::gguf::Writer writer;
        writer.set("split.no", number);
        writer.set("split.count", std::uint16_t{2});
        writer.set("split.tensors.count", 2);
        writer.add_tensor(number ? "b" : "a", gg::DType::f32, {8}, counting_bytes(32));
        writer.write(folder / ("m-0000" + std::to_string(number + 1) + "-of-00002.gguf"));
    }
    const File file = File::open(folder / "m-00001-of-00002.gguf");
    std::filesystem::resize_file(folder / "m-00002-of-00002.gguf", 8);
    check_refusal([&] { file.require_whole(); }, (folder / "m-00002-of-00002.gguf").string(), "file size",
                  "bytes", "8 bytes");
}

TEST_CASE("replacing a mapped file by rename does not touch what is open") {
    TemporaryFolder folder;
    write_model(folder / "model.gguf");
    const File file = File::open(folder / "model.gguf");
    gg::gguf::Writer().write(folder / "model.gguf");
    CHECK_NOTHROW(file.require_whole());
    CHECK(static_cast<int>(file.tensors()[0].data[255]) == 255);
}

TEST_CASE("a fault's address names the open file that holds it") {
    TemporaryFolder folder;
    write_model(folder / "a.gguf");
    write_model(folder / "b.gguf");
    const int outside = 0;
    const std::byte* inside = nullptr;
    {
        MappedFile a = MappedFile::open(folder / "a.gguf");
        const MappedFile b = MappedFile::open(folder / "b.gguf");
        inside = a.bytes().data();
        const MappedFile moved = std::move(a);
        CHECK(gg::gguf::describe_fault(inside) == (folder / "a.gguf").string());
        CHECK(gg::gguf::describe_fault(inside + moved.bytes().size() - 1) == (folder / "a.gguf").string());
        CHECK(gg::gguf::describe_fault(b.bytes().data() + 1) == (folder / "b.gguf").string());
        CHECK(gg::gguf::describe_fault(&outside).empty());
        CHECK(gg::gguf::describe_fault(nullptr).empty());
    }
    CHECK(gg::gguf::describe_fault(inside).empty());
}

TEST_CASE("more files than the table holds are mapped all the same") {
    TemporaryFolder folder;
    gg::gguf::Writer().write(folder / "a.gguf");
    std::vector<MappedFile> files;
    for (std::size_t i = 0; i < gg::gguf::detail::mapping_slots + 2; ++i)
        files.push_back(MappedFile::open(folder / "a.gguf"));
    CHECK(static_cast<char>(files.back().bytes()[0]) == 'G');
    CHECK(gg::gguf::describe_fault(files.back().bytes().data()).empty());
    files.clear();
    const MappedFile again = MappedFile::open(folder / "a.gguf");
    CHECK(gg::gguf::describe_fault(again.bytes().data()) == (folder / "a.gguf").string());
}

TEST_CASE("a program that reads a truncated file can say which one it was") {
    TemporaryFolder folder;
    const auto path = folder / "truncated.gguf";
    write_model(path);
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::dup2(ends[1], STDERR_FILENO);
        read_truncated(path);
        ::_exit(98);
    }
    ::close(ends[1]);
    std::string said(4096, '\0');
    const ssize_t bytes = ::read(ends[0], said.data(), said.size());
    ::close(ends[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 1);
    REQUIRE(bytes > 0);
    said.resize(static_cast<std::size_t>(bytes));
    CHECK(said == path.string());
}

TEST_CASE("advice about reading never fails") {
    TemporaryFolder folder;
    write_model(folder / "a.gguf");
    const MappedFile file = MappedFile::open(folder / "a.gguf");
    file.advise_sequential();
    CHECK(static_cast<char>(file.bytes()[0]) == 'G');
}
