// Libraries of the CUDA toolkit that are loaded when first needed, so that a program starts where they are
// missing. They are sought, in this order, in
//
//   $CUDA_HOME and $CUDA_PATH            lib64 and lib
//   the loader's folders                 $LD_LIBRARY_PATH, those of /etc/ld.so.cache, /usr/lib64, /usr/lib
//   /usr/local/cuda, /usr/local/cuda-*   lib64 and lib, the newest first
//   Python's packages                    of $VIRTUAL_ENV, $CONDA_PREFIX and each python3 in PATH: the wheels
//                                        nvidia-* (nvidia/*/lib in site-packages), and lib itself
//
// No program is run and nothing is loaded to find one: a library is known by its file's size and time.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "gg/core/error.hpp"

namespace gg::cuda {

using Folders = std::vector<std::filesystem::path>;

namespace detail {

inline std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

inline std::vector<std::string> split_path(const std::string& text) {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find(':', begin), text.size());
        if (end > begin) parts.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

/// The folders in `parent` whose names begin with `prefix`, the last in alphabetical order first.
inline Folders children(const std::filesystem::path& parent, std::string_view prefix) {
    Folders found;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(parent, error), end; !error && entry != end;
         entry.increment(error))
        if (entry->path().filename().string().starts_with(prefix)) found.push_back(entry->path());
    std::sort(found.rbegin(), found.rend());
    return found;
}

/// Adds folders that exist, each once, in order.
class FolderList {
  public:
    void add(const std::filesystem::path& folder) {
        std::error_code error;
        if (!std::filesystem::is_directory(folder, error)) return;
        if (std::find(folders_.begin(), folders_.end(), folder) == folders_.end()) folders_.push_back(folder);
    }
    /// The folders of a toolkit, or of any other tree that has libraries.
    void add_tree(const std::filesystem::path& root) {
        add(root / "lib64");
        add(root / "lib");
    }
    /// The folders of a Python installation: PREFIX/lib/python3*/site-packages/nvidia/*/lib.
    void add_python(const std::filesystem::path& prefix) {
        for (const char* lib : {"lib", "lib64", "local/lib"})
            for (const auto& python : children(prefix / lib, "python3"))
                for (const char* packages : {"site-packages", "dist-packages"}) add_wheels(python / packages);
    }
    void add_wheels(const std::filesystem::path& packages) {
        const std::filesystem::path nvidia = packages / "nvidia";
        for (const auto& package : children(nvidia, "")) add(package / "lib");
    }
    Folders take() { return std::move(folders_); }

  private:
    Folders folders_;
};

/// The folders that the loader's cache names. The file is a table of numbers, then the paths, each ended by a
/// zero byte; only the paths are read.
inline void add_loader_folders(FolderList& list) {
    for (const std::string& folder : split_path(environment("LD_LIBRARY_PATH"))) list.add(folder);
    std::ifstream file("/etc/ld.so.cache", std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    std::string last;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\0', begin), text.size());
        const std::string_view path(text.data() + begin, end - begin);
        if (path.starts_with('/')) {
            const std::string_view folder = path.substr(0, path.rfind('/'));
            if (folder != last) list.add(last = folder);
        }
        begin = end + 1;
    }
    list.add("/usr/lib64");
    list.add("/usr/lib");
}

inline void add_python_folders(FolderList& list) {
    if (const std::string root = environment("VIRTUAL_ENV"); !root.empty()) list.add_python(root);
    if (const std::string root = environment("CONDA_PREFIX"); !root.empty()) {
        list.add_python(root);
        list.add_tree(root);
    }
    for (const std::filesystem::path folder : split_path(environment("PATH"))) {
        std::error_code error;
        const std::filesystem::path python = folder / "python3";
        if (!std::filesystem::exists(python, error)) continue;
        list.add_python(folder.parent_path());
        // pyenv's shims choose among versions that lie beside them.
        if (folder.filename() == "shims")
            for (const auto& version : children(folder.parent_path() / "versions", ""))
                list.add_python(version);
        const std::filesystem::path real = std::filesystem::canonical(python, error);
        if (!error) list.add_python(real.parent_path().parent_path());
    }
    if (const std::string home = environment("HOME"); !home.empty())
        list.add_python(std::filesystem::path(home) / ".local");
    list.add_wheels("/usr/lib/python3/dist-packages");
}

}  // namespace detail

/// The folders in which libraries are sought, as this header's top says; those that do not exist are left
/// out.
inline Folders library_folders() {
    detail::FolderList list;
    for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
        if (const std::string root = detail::environment(name); !root.empty()) list.add_tree(root);
    detail::add_loader_folders(list);
    for (const char* prefix : {"cuda", "cuda-"})
        for (const auto& root : detail::children("/usr/local", prefix))
            if (prefix == std::string_view("cuda-") || root.filename() == "cuda") list.add_tree(root);
    detail::add_python_folders(list);
    return list.take();
}

/// What is sought and what to say if it is not there.
struct LibraryQuery {
    std::vector<std::string> names;  ///< file names, the preferred one first
    std::string purpose;             ///< "needed to ..."
    std::string remedy;              ///< a sentence
};

/// A library's file. Another build of it has another size or time.
struct LibraryFile {
    std::filesystem::path path;
    std::uint64_t bytes = 0;
    std::int64_t modified = 0;  ///< in the clock of std::filesystem
};

/// The files that bear a name of the query, the best first: the first name in all folders, then the next.
inline std::vector<LibraryFile> find_library(const LibraryQuery& query,
                                             std::span<const std::filesystem::path> folders) {
    std::vector<LibraryFile> files;
    for (const std::string& name : query.names)
        for (const std::filesystem::path& folder : folders) {
            std::error_code no_size, no_time;
            LibraryFile file{folder / name};
            file.bytes = std::filesystem::file_size(file.path, no_size);
            file.modified = std::filesystem::last_write_time(file.path, no_time).time_since_epoch().count();
            if (!no_size && !no_time) files.push_back(std::move(file));
        }
    return files;
}

/// Throws cuda_error that names the library, where it was sought, and the remedy. `reasons` says why files
/// that were found could not be loaded.
[[noreturn]] inline void refuse_library(const LibraryQuery& query,
                                        std::span<const std::filesystem::path> folders,
                                        const std::string& reasons = {}) {
    std::string names, places;
    for (const std::string& name : query.names) names += (names.empty() ? "" : " or ") + name;
    for (const auto& folder : folders) places += (places.empty() ? "" : ", ") + folder.string();
    std::string found = reasons;
    if (found.empty()) found = places.empty() ? "no folder to look in" : "none in " + places;
    throw Error(ErrorCode::cuda_error,
                {.expected = names + ", " + query.purpose, .found = found, .next_step = query.remedy});
}

/// A loaded library. It stays loaded until the program ends: unloading one that has started threads or
/// registered exit handlers is not safe.
class SharedLibrary {
  public:
    /// Loads the best file that can be loaded. Throws cuda_error as refuse_library does.
    SharedLibrary(const LibraryQuery& query, std::span<const std::filesystem::path> folders) {
        std::string reasons;
        for (const LibraryFile& file : find_library(query, folders)) {
            handle_ = ::dlopen(file.path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
            if (handle_) {
                path_ = file.path;
                return;
            }
            reasons += (reasons.empty() ? "" : "; ") + std::string(::dlerror());
        }
        refuse_library(query, folders, reasons);
    }
    explicit SharedLibrary(const LibraryQuery& query) : SharedLibrary(query, library_folders()) {}

    const std::filesystem::path& path() const { return path_; }

    /// Sets a pointer to the function of that name. Throws cuda_error if the library has none.
    template <class F>
    void bind(F*& function, const char* name) const {
        function = reinterpret_cast<F*>(::dlsym(handle_, name));
        if (function) return;
        throw Error(ErrorCode::cuda_error, {.file = path_.string(),
                                            .expected = std::string("the function ") + name,
                                            .found = "none",
                                            .next_step = "Is it another library of that name?"});
    }

  private:
    void* handle_ = nullptr;
    std::filesystem::path path_;
};

}  // namespace gg::cuda
