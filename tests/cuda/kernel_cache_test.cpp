// The cache of compiled units: what hits, what misses, and what no fault of the disk may do.
#include "gg/cuda/kernel_cache.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "catch.hpp"
#include "gguf/temporary_folder.hpp"
#include "nvrtc.hpp"

using namespace gg::cuda;
using cuda_test::message_of;
namespace fs = std::filesystem;

namespace {

const std::string constant_text = "#define GG_TEST_CONSTANT 5\n";
const HeaderText headers[] = {{"own/constant.cuh", constant_text}};

CompileUnit unit_of(const std::string& name, int number = 0) {
    return {name, "#include \"own/constant.cuh\"\nextern \"C\" __global__ void " + name +
                      "(int* x) { *x = GG_TEST_CONSTANT + " + std::to_string(number) + "; }\n"};
}

KernelCacheOptions in_folder(const fs::path& folder) {
    KernelCacheOptions options;
    options.folder = folder;
    return options;
}

std::string read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const fs::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

/// The files of a folder with an ending.
std::vector<fs::path> files_in(const fs::path& folder, const std::string& ending) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder))
        if (entry.path().string().ends_with(ending)) found.push_back(entry.path());
    return found;
}

/// Which units of a load came from the cache.
std::vector<bool> cached(const std::vector<CompiledUnit>& units) {
    std::vector<bool> flags;
    for (const CompiledUnit& unit : units) flags.push_back(unit.cached);
    return flags;
}

}  // namespace

TEST_CASE("a unit is compiled once") {
    GG_NEED_NVRTC();
    gguf_test::TemporaryFolder folder;
    const fs::path kernels = folder / "gg/kernels";
    const std::vector<CompileUnit> units = {unit_of("a"), unit_of("b"), unit_of("c")};
    std::vector<std::string> names;
    std::vector<std::size_t> counts;
    const KernelCache::Progress progress = [&](std::size_t done, std::size_t total, const std::string& name) {
        CHECK(total == 3);
        counts.push_back(done);
        names.push_back(name);
    };
    const auto first = KernelCache(headers, in_folder(kernels)).load(units, "sm_80", progress);
    CHECK(cached(first) == std::vector<bool>{false, false, false});
    CHECK(counts == std::vector<std::size_t>{0, 1, 2, 3});
    CHECK(std::set<std::string>(names.begin(), names.end()) == std::set<std::string>{"", "a", "b", "c"});

    const auto second = KernelCache(headers, in_folder(kernels)).load(units, "sm_80", progress);
    CHECK(cached(second) == std::vector<bool>{true, true, true});
    CHECK(counts.size() == 4);  // nothing was compiled, so nothing was told
    REQUIRE(second.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(second[i].name == units[i].name);
        CHECK(second[i].cubin == first[i].cubin);
        CHECK(second[i].log == first[i].log);
        REQUIRE(second[i].kernels.size() == 1);
        CHECK(second[i].kernels[0].name == units[i].name);
        CHECK(second[i].kernels[0].registers == first[i].kernels[0].registers);
    }
    // The code names its source, which lies beside it; nothing else is left in the folder.
    CHECK(files_in(kernels, ".cubin").size() == 3);
    CHECK(files_in(kernels, "").size() == 6);
    for (const fs::path& source : files_in(kernels, ".cu")) {
        const std::string text = read_file(source);
        CHECK((text == units[0].source || text == units[1].source || text == units[2].source));
        fs::path code = source;
        CHECK(read_file(code.replace_extension(".cubin")).find(source.filename().string()) !=
              std::string::npos);
    }
    // A new unit among old ones is the only one compiled.
    const auto mixed = KernelCache(headers, in_folder(kernels))
                           .load(std::vector{unit_of("a"), unit_of("d"), unit_of("c")}, "sm_80", progress);
    CHECK(cached(mixed) == std::vector<bool>{true, false, true});
    CHECK(mixed[0].cubin == first[0].cubin);
    CHECK(mixed[2].cubin == first[2].cubin);
    CHECK(std::vector<std::size_t>(counts.begin() + 4, counts.end()) == std::vector<std::size_t>{2, 3});
}

TEST_CASE("what could change the code changes the key") {
    GG_NEED_NVRTC();
    gguf_test::TemporaryFolder folder;
    const auto is_cached = [&](const CompileUnit& unit, const std::string& architecture,
                               std::span<const HeaderText> texts) {
        return KernelCache(texts, in_folder(folder.path())).load(std::vector{unit}, architecture)[0].cached;
    };
    const CompileUnit unit = unit_of("a");
    CHECK_FALSE(is_cached(unit, "sm_80", headers));
    CHECK(is_cached(unit, "sm_80", headers));
    CHECK_FALSE(is_cached(unit, "sm_89", headers));
    CHECK_FALSE(is_cached(unit_of("a", 1), "sm_80", headers));
    CompileUnit with_option = unit;
    with_option.options = {"-DA", "-DB"};
    CHECK_FALSE(is_cached(with_option, "sm_80", headers));
    with_option.options = {"-DB", "-DA"};
    CHECK_FALSE(is_cached(with_option, "sm_80", headers));
    const std::string changed = "#define GG_TEST_CONSTANT 6\n";
    CHECK_FALSE(is_cached(unit, "sm_80", std::vector<HeaderText>{{"own/constant.cuh", changed}}));
    CHECK_FALSE(is_cached(unit, "sm_80", std::vector<HeaderText>{headers[0], {"own/other.cuh", changed}}));
    CHECK(is_cached(unit, "sm_80", headers));
}

TEST_CASE("another NVRTC is another key, and a hit does not load it") {
    GG_NEED_NVRTC();
    gguf_test::TemporaryFolder folder;
    const LibraryFile real = find_library(nvrtc_query(), library_folders())[0];
    const fs::path link = folder / real.path.filename().string();
    fs::create_symlink(fs::canonical(real.path), link);
    KernelCacheOptions options = in_folder(folder / "kernels");
    options.library_folders = {folder.path()};
    const std::vector<CompileUnit> units = {unit_of("a")};
    CHECK_FALSE(KernelCache(headers, options).load(units, "sm_80")[0].cached);
    CHECK(KernelCache(headers, options).load(units, "sm_80")[0].cached);
    // A file that is no library, of the same name, size and time: only one that is not loaded can serve.
    const fs::path fake = folder / "fake" / link.filename();
    const auto time = fs::last_write_time(link);
    fs::create_directory(fake.parent_path());
    write_file(fake, "no library");
    fs::resize_file(fake, real.bytes);
    fs::last_write_time(fake, time);
    options.library_folders = {fake.parent_path()};
    CHECK(KernelCache(headers, options).load(units, "sm_80")[0].cached);
    fs::last_write_time(fake, time + std::chrono::seconds(1));
    CHECK(message_of([&] { KernelCache(headers, options).load(units, "sm_80"); }).find(fake.string()) !=
          std::string::npos);
    fs::resize_file(fake, real.bytes + 1);
    fs::last_write_time(fake, time);
    CHECK(message_of([&] { KernelCache(headers, options).load(units, "sm_80"); }).find(fake.string()) !=
          std::string::npos);
    fs::remove(fake);
    CHECK(message_of([&] { KernelCache(headers, options).load(units, "sm_80"); }).find("pip install") !=
          std::string::npos);
}

TEST_CASE("damaged, cut and foreign files are replaced") {
    GG_NEED_NVRTC();
    gguf_test::TemporaryFolder folder;
    const std::vector<CompileUnit> units = {unit_of("a"), unit_of("b")};
    const auto load = [&] { return KernelCache(headers, in_folder(folder.path())).load(units, "sm_80"); };
    const auto good = load();
    const std::vector<fs::path> files = files_in(folder.path(), ".cubin");
    REQUIRE(files.size() == 2);
    const bool first_is_a = files[0].filename().string().starts_with("a-");
    const fs::path path = files[first_is_a ? 0 : 1], other = files[first_is_a ? 1 : 0];
    const std::string whole = read_file(path), foreign = read_file(other);
    const std::size_t size = whole.size(), tail = size - 112;
    std::vector<std::pair<std::string, std::string>> faults;
    const std::size_t flips[] = {0,
                                 5,
                                 good[0].cubin.size() - 1,
                                 good[0].cubin.size(),
                                 tail - 1,
                                 tail,
                                 tail + 31,
                                 tail + 32,
                                 tail + 63,
                                 tail + 64,
                                 tail + 79,
                                 tail + 95,
                                 tail + 96,
                                 size - 1};
    for (const std::size_t at : flips) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ 1);
        faults.emplace_back("byte " + std::to_string(at), damaged);
    }
    for (const std::size_t length :
         {std::size_t{0}, std::size_t{1}, std::size_t{111}, std::size_t{112}, tail, size - 1})
        faults.emplace_back("cut to " + std::to_string(length), whole.substr(0, length));
    faults.emplace_back("its last bytes alone", whole.substr(tail));
    faults.emplace_back("a byte more", whole + "x");
    faults.emplace_back("another unit's", foreign);
    std::string sizes = whole;
    sizes.replace(tail + 64, 32, "ffffffffffffffff0000000000000000");
    faults.emplace_back("sizes", sizes);
    for (const auto& [what, bytes] : faults) {
        CAPTURE(what);
        write_file(path, bytes);
        const auto loaded = load();
        CHECK(cached(loaded) == std::vector<bool>{false, true});
        CHECK(loaded[0].kernels.size() == 1);
        CHECK(read_file(path) == whole);
        CHECK(cached(load()) == std::vector<bool>{true, true});
    }
}

TEST_CASE("a folder that cannot be used costs the cache alone") {
    GG_NEED_NVRTC();
    gguf_test::TemporaryFolder folder;
    const std::vector<CompileUnit> units = {unit_of("a"), unit_of("b"), unit_of("c")};
    std::vector<std::string> notes;
    const auto load = [&](const fs::path& kernels) {
        KernelCacheOptions options = in_folder(kernels);
        options.note = [&](const std::string& note) { notes.push_back(note); };
        notes.clear();
        KernelCache cache(headers, options);
        for (int i = 0; i < 2; ++i) {
            const auto compiled = cache.load(units, "sm_80");
            for (const CompiledUnit& unit : compiled) CHECK(unit.cubin.size() > 100);
            CHECK(cached(compiled) == std::vector<bool>{false, false, false});
        }
        CHECK(notes.size() == 1);
    };
    write_file(folder / "file", "");
    load(folder / "file/kernels");
    load({});
    CHECK(notes[0].find("HOME") != std::string::npos);
    fs::create_directory(folder / "locked");
    fs::permissions(folder / "locked", fs::perms::owner_read | fs::perms::owner_exec);
    if (::access((folder / "locked").c_str(), W_OK) != 0) load(folder / "locked");
    // A folder stands where an entry should.
    KernelCache(headers, in_folder(folder / "kernels")).load(units, "sm_80");
    for (const fs::path& file : files_in(folder / "kernels", ".cubin")) {
        fs::remove(file);
        fs::create_directories(file / "something");
    }
    load(folder / "kernels");
}

TEST_CASE("processes may fill the cache at the same time") {
    GG_NEED_NVRTC();
    gguf_test::TemporaryFolder folder;
    const std::vector<CompileUnit> units = {unit_of("a"), unit_of("b"), unit_of("c")};
    const auto load = [&] { return KernelCache(headers, in_folder(folder.path())).load(units, "sm_80"); };
    constexpr int processes = 4, rounds = 4;
    std::vector<pid_t> children;
    for (int i = 0; i < processes; ++i) {
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child > 0) {
            children.push_back(child);
            continue;
        }
        int wrong = 0;
        try {
            for (int round = 0; round < rounds; ++round) {
                for (const CompiledUnit& unit : load())
                    wrong += unit.kernels.size() != 1 || unit.kernels[0].name != unit.name;
                for (const fs::path& file : files_in(folder.path(), ".cubin")) {
                    std::error_code gone_already;
                    fs::resize_file(file, static_cast<std::uintmax_t>(50 * (i + round)), gone_already);
                }
            }
        } catch (...) {
            wrong = 100;
        }
        ::_exit(wrong);
    }
    for (const pid_t child : children) {
        int status = -1;
        CHECK(::waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    load();
    CHECK(cached(load()) == std::vector<bool>{true, true, true});
    CHECK(files_in(folder.path(), ".tmp").empty());
}

TEST_CASE("a failure ends the load, and what was compiled is kept") {
    GG_NEED_NVRTC();
    gguf_test::TemporaryFolder folder;
    KernelCacheOptions options = in_folder(folder.path());
    options.threads = 1;
    KernelCache cache(headers, options);
    const CompileUnit wrong = {"wrong", "no source"};
    CHECK(message_of([&] {
              cache.load(std::vector{unit_of("a"), wrong, unit_of("b")}, "sm_80");
          }).find("wrong") != std::string::npos);
    CHECK(cached(cache.load(std::vector{unit_of("a"), unit_of("b")}, "sm_80")) ==
          std::vector<bool>{true, false});
    struct Stop {};
    const auto stop = [](std::size_t done, std::size_t, const std::string&) {
        if (done > 0) throw Stop();
    };
    CHECK_THROWS_AS(cache.load(std::vector{unit_of("d"), unit_of("e")}, "sm_80", stop), Stop);
    CHECK(cached(cache.load(std::vector{unit_of("d"), unit_of("e")}, "sm_80")) ==
          std::vector<bool>{true, false});
    CHECK(message_of([&] { cache.load(std::vector{unit_of("f")}, "sm_999"); }).find("sm_999") !=
          std::string::npos);
    CHECK(cache.load({}, "sm_80").empty());
}

TEST_CASE("the hash is FNV-1a with 128 bits") {
    // Published test values.
    CHECK(Hash().hex() == "6c62272e07bb014262b821756295c58d");
    CHECK(Hash().add_bytes("a").hex() == "d228cb696f1a8caf78912b704e4a8964");
    CHECK(Hash().add_bytes("foobar").hex() == "343e1662793c64bf6f0d3597ba446f18");
    CHECK(Hash().add_bytes("foo").add_bytes("bar").hex() == Hash().add_bytes("foobar").hex());
    CHECK(Hash().add("foo").add("bar").hex() != Hash().add("foob").add("ar").hex());
}
