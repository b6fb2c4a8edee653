// Where libraries are sought: the order, and what is skipped.
#include "gg/cuda/shared_library.hpp"

#include <map>

#include "catch.hpp"
#include "gguf/temporary_folder.hpp"
#include "nvrtc.hpp"

using namespace gg::cuda;
namespace fs = std::filesystem;

namespace {

/// Sets environment variables; at the end they are as before. An empty value is none.
class Environment {
  public:
    explicit Environment(const std::map<std::string, std::string>& values) {
        for (const auto& [name, value] : values) {
            before_[name] = gg::cuda::detail::environment(name.c_str());
            set(name, value);
        }
    }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;
    ~Environment() {
        for (const auto& [name, value] : before_) set(name, value);
    }

  private:
    static void set(const std::string& name, const std::string& value) {
        if (value.empty())
            ::unsetenv(name.c_str());
        else
            ::setenv(name.c_str(), value.c_str(), 1);
    }
    std::map<std::string, std::string> before_;
};

void make_file(const fs::path& path) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "x";
}

std::size_t position(const Folders& folders, const fs::path& folder) {
    return static_cast<std::size_t>(std::find(folders.begin(), folders.end(), folder) - folders.begin());
}

}  // namespace

TEST_CASE("libraries are sought in the documented order") {
    gguf_test::TemporaryFolder root;
    const fs::path r = root.path();
    for (const char* folder : {"home/lib64", "home/lib", "path/lib64", "loader/one", "loader/two",
                               "venv/lib/python3.12/site-packages/nvidia/cu13/lib",
                               "venv/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib",
                               "python/lib/python3.11/site-packages/nvidia/cu13/lib", "conda/lib",
                               "pyenv/versions/3.13.0/lib/python3.13/site-packages/nvidia/cu13/lib",
                               "user/.local/lib/python3.11/site-packages/nvidia/cu13/lib"})
        fs::create_directories(r / folder);
    make_file(r / "python/bin/python3");
    make_file(r / "pyenv/shims/python3");
    const std::string s = r.string();
    const Environment environment(
        {{"CUDA_HOME", s + "/home"},
         {"CUDA_PATH", s + "/path"},
         {"LD_LIBRARY_PATH", s + "/loader/one::" + s + "/missing:" + s + "/loader/two"},
         {"VIRTUAL_ENV", s + "/venv"},
         {"CONDA_PREFIX", s + "/conda"},
         {"PATH", s + "/empty:" + s + "/python/bin:" + s + "/pyenv/shims"},
         {"HOME", s + "/user"}});
    const Folders folders = library_folders();
    const char* order[] = {"home/lib64",
                           "home/lib",
                           "path/lib64",
                           "loader/one",
                           "loader/two",
                           "venv/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib",
                           "venv/lib/python3.12/site-packages/nvidia/cu13/lib",
                           "conda/lib",
                           "python/lib/python3.11/site-packages/nvidia/cu13/lib",
                           "pyenv/versions/3.13.0/lib/python3.13/site-packages/nvidia/cu13/lib",
                           "user/.local/lib/python3.11/site-packages/nvidia/cu13/lib"};
    std::size_t last = 0;
    for (const char* folder : order) {
        CAPTURE(folder);
        const std::size_t at = position(folders, r / folder);
        REQUIRE(at < folders.size());
        CHECK(at >= last);
        last = at;
    }
    CHECK(position(folders, r / "home/lib64") == 0);
    CHECK(position(folders, r / "missing") == folders.size());
    // The loader's own folders are among them, before Python's packages.
    const auto found = find_library({{"libc.so.6"}, "", ""}, folders);
    REQUIRE_FALSE(found.empty());
    CHECK(position(folders, found[0].path.parent_path()) <
          position(folders, r / "venv/lib/python3.12/site-packages/nvidia/cu13/lib"));
    for (std::size_t i = 0; i < folders.size(); ++i) CHECK(position(folders, folders[i]) == i);
}

TEST_CASE("the preferred name wins over the preferred folder") {
    gguf_test::TemporaryFolder root;
    make_file(root / "a/libx.so.12");
    make_file(root / "b/libx.so.12");
    make_file(root / "b/libx.so.13");
    fs::create_directories(root / "a/libx.so.13");  // a folder is no library
    const Folders folders = {root / "a", root / "b"};
    const auto found = find_library({{"libx.so.13", "libx.so.12"}, "", ""}, folders);
    REQUIRE(found.size() == 3);
    CHECK(found[0].path == root / "b/libx.so.13");
    CHECK(found[1].path == root / "a/libx.so.12");
    CHECK(found[2].path == root / "b/libx.so.12");
    CHECK(found[0].bytes == 1);
    const fs::path first = found[0].path;
    fs::last_write_time(first, fs::last_write_time(first) + std::chrono::seconds(5));
    CHECK(find_library({{"libx.so.13"}, "", ""}, folders)[0].modified != found[0].modified);
}

TEST_CASE("a library is loaded, and its functions are found") {
    const LibraryQuery query = {{"libm.so.6"}, "which knows cosines", "Install it."};
    const Folders folders = library_folders();
    const SharedLibrary library(query, folders);
    double (*cosine)(double) = nullptr;
    library.bind(cosine, "cos");
    REQUIRE(cosine != nullptr);
    CHECK(cosine(0.0) == 1.0);
    void (*none)() = nullptr;
    const std::string message = cuda_test::message_of([&] { library.bind(none, "no_such_function"); });
    CHECK(message.find("no_such_function") != message.npos);
    CHECK(message.find(library.path().string()) == 0);
}
