// Compiled units on the disk, so that a model's kernels are compiled once: $XDG_CACHE_HOME/gg/kernels, or
// ~/.cache/gg/kernels. An entry's key is a 128-bit hash of everything that could change its code: the unit's
// name, source and options, all headers, the architecture, libnvrtc's name, size and time, and gg's version.
// With all units in the cache NVRTC is found but not loaded.
//
//   NAME-ARCHITECTURE-KEY.cubin    the cubin, the compiler's log, then a trailer of 112 characters: key (32),
//                                  checksum (32), bytes of the cubin (16) and of the log (16), magic (16)
//   NAME-ARCHITECTURE-KEY.cu       the source, for profilers: the code's line table names it
//
// A file appears complete under its name or not at all, so processes may fill the cache at the same time. One
// that is damaged, cut or foreign counts as missing and is replaced. A folder that cannot be used costs the
// cache, never the run.
#pragma once

#include <atomic>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/cuda/compiler.hpp"
#include "gg/cuda/hash.hpp"
#include "gg/cuda/shared_library.hpp"
#include "gg/cuda/unit.hpp"
#include "gg/gguf/output_file.hpp"
#include "gg/host/thread_pool.hpp"
#include "gg/version.hpp"

namespace gg::cuda {

/// The folder of the cache; empty if the environment names no home.
inline std::filesystem::path kernel_cache_folder() {
    const std::filesystem::path cache = detail::environment("XDG_CACHE_HOME");
    if (cache.is_absolute()) return cache / "gg" / "kernels";
    const std::filesystem::path home = detail::environment("HOME");
    if (home.is_absolute()) return home / ".cache" / "gg" / "kernels";
    return {};
}

namespace detail {

constexpr std::size_t kernel_trailer_bytes = 112;

inline std::string kernel_trailer(const std::string& key, std::string_view cubin, std::string_view log) {
    constexpr std::string_view magic = "gg kernel file 1";
    char sizes[33];
    std::snprintf(sizes, sizeof sizes, "%016llx%016llx", static_cast<unsigned long long>(cubin.size()),
                  static_cast<unsigned long long>(log.size()));
    return key + Hash().add(key).add(cubin).add(log).hex() + sizes + std::string(magic);
}

/// The unit in the bytes of an entry; nothing if they are not a whole entry of that key.
inline std::optional<CompiledUnit> read_kernel_file(std::string_view bytes, const std::string& key) {
    if (bytes.size() < kernel_trailer_bytes) return {};
    const std::string_view body = bytes.substr(0, bytes.size() - kernel_trailer_bytes);
    const std::string_view trailer = bytes.substr(body.size());
    std::uint64_t cubin_bytes = 0;
    std::from_chars(trailer.data() + 64, trailer.data() + 80, cubin_bytes, 16);
    if (cubin_bytes > body.size()) return {};
    const std::string_view cubin = body.substr(0, cubin_bytes), log = body.substr(cubin_bytes);
    if (trailer != kernel_trailer(key, cubin, log)) return {};
    CompiledUnit unit;
    unit.cubin = cubin;
    unit.log = log;
    unit.kernels = read_reports(log);
    unit.cached = true;
    return unit;
}

}  // namespace detail

struct KernelCacheOptions {
    std::filesystem::path folder = kernel_cache_folder();
    Folders library_folders = gg::cuda::library_folders();  ///< where NVRTC is sought
    int threads = 0;                                        ///< that compile; 0: one a core
    std::function<void(const std::string&)> note = {};      ///< is told once if the folder cannot be used
};

class KernelCache {
  public:
    /// `done` of `total` units are at hand, of which `name` is the last that was compiled (empty at first).
    /// Called only if something is compiled, one call at a time, from any thread. What it throws ends the
    /// load.
    using Progress = std::function<void(std::size_t done, std::size_t total, const std::string& name)>;

    /// `headers` are those that units include; the texts must outlive the cache.
    explicit KernelCache(std::span<const HeaderText> headers, KernelCacheOptions options = {})
        : headers_(headers), options_(std::move(options)) {
        for (const HeaderText& header : headers) header_hash_.add(header.name).add(header.text);
    }

    /// The units compiled for an architecture, in their order, each from the cache if it is there. Throws
    /// cuda_error if NVRTC is missing, does not know the architecture, or refuses a source.
    std::vector<CompiledUnit> load(std::span<const CompileUnit> units, const std::string& architecture,
                                   const Progress& progress = {}) {
        const std::vector<LibraryFile> libraries = find_library(nvrtc_query(), options_.library_folders);
        if (libraries.empty()) refuse_library(nvrtc_query(), options_.library_folders);
        std::vector<CompiledUnit> compiled;
        std::vector<Missing> missing;
        for (const CompileUnit& unit : units) {
            Entry entry = entry_of(unit, architecture, libraries[0]);
            std::optional<CompiledUnit> found = read(entry);
            if (!found) missing.push_back({compiled.size(), std::move(entry)});
            compiled.push_back(found ? std::move(*found) : CompiledUnit());
            compiled.back().name = unit.name;
        }
        if (!missing.empty()) compile(units, architecture, missing, compiled, progress);
        return compiled;
    }

  private:
    struct Entry {
        std::string key;
        std::filesystem::path stem;  ///< path without ".cubin"; empty if there is no folder
    };
    struct Missing {
        std::size_t unit;
        Entry entry;
    };

    Entry entry_of(const CompileUnit& unit, const std::string& architecture,
                   const LibraryFile& library) const {
        Hash hash = header_hash_;
        hash.add(unit.name).add(unit.source).add(architecture).add(gg::version);
        for (const char* option : compile_options) hash.add(option);
        hash.add(std::uint64_t{unit.options.size()});
        for (const std::string& option : unit.options) hash.add(option);
        hash.add(library.path.filename().string()).add(library.bytes);
        hash.add(static_cast<std::uint64_t>(library.modified));
        Entry entry{hash.hex(), {}};
        if (!options_.folder.empty())
            entry.stem = options_.folder / (unit.name + "-" + architecture + "-" + entry.key);
        return entry;
    }

    static std::string read_bytes(const std::filesystem::path& path) {
        std::error_code error;
        if (!std::filesystem::is_regular_file(path, error)) return {};
        std::ifstream file(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }

    static std::optional<CompiledUnit> read(const Entry& entry) {
        if (entry.stem.empty()) return {};
        return detail::read_kernel_file(read_bytes(entry.stem.string() + ".cubin"), entry.key);
    }

    /// Writes a file of the cache and says whether it is there; tells why not, once.
    bool write(const std::filesystem::path& path, std::string_view bytes) {
        try {
            if (options_.folder.empty())
                throw Error(ErrorCode::invalid_request, "neither XDG_CACHE_HOME nor HOME is set");
            std::filesystem::create_directories(options_.folder);
            gguf::OutputFile file(path);
            file.write(std::as_bytes(std::span(bytes)));
            file.commit();
            return true;
        } catch (const std::exception& error) {
            const std::lock_guard lock(mutex_);
            if (!std::exchange(noted_, true) && options_.note)
                options_.note(std::string("compiled kernels are not kept: ") + error.what());
            return false;
        }
    }

    CompiledUnit compile_one(const Compiler& compiler, const CompileUnit& unit,
                             const std::string& architecture, const Entry& entry) {
        const std::filesystem::path source = entry.stem.string() + ".cu";
        // The line table holds the source's time: one that is there stays, so that the code is the same
        // again.
        const bool kept = read_bytes(source) == unit.source || write(source, unit.source);
        CompiledUnit compiled =
            compiler.compile(unit, headers_, architecture, kept ? source.string() : unit.name + ".cu");
        if (kept)
            write(entry.stem.string() + ".cubin",
                  compiled.cubin + compiled.log +
                      detail::kernel_trailer(entry.key, compiled.cubin, compiled.log));
        return compiled;
    }

    void compile(std::span<const CompileUnit> units, const std::string& architecture,
                 const std::vector<Missing>& missing, std::vector<CompiledUnit>& compiled,
                 const Progress& progress) {
        const Compiler compiler(options_.library_folders);
        compiler.require(architecture);
        std::size_t done = units.size() - missing.size();
        if (progress) progress(done, units.size(), "");
        const auto cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
        const int threads = options_.threads > 0 ? options_.threads : cores;
        host::ThreadPool pool(std::min(threads, static_cast<int>(missing.size())));
        std::mutex mutex;
        std::exception_ptr failure;
        std::atomic<bool> failed = false;
        pool.run(static_cast<long>(missing.size()), [&](long task, int) {
            if (failed) return;
            const auto& [index, entry] = missing[static_cast<std::size_t>(task)];
            try {
                compiled[index] = compile_one(compiler, units[index], architecture, entry);
                const std::lock_guard lock(mutex);
                ++done;
                if (progress) progress(done, units.size(), units[index].name);
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (!failed.exchange(true)) failure = std::current_exception();
            }
        });
        if (failure) std::rethrow_exception(failure);
    }

    std::span<const HeaderText> headers_;
    KernelCacheOptions options_;
    Hash header_hash_;
    std::mutex mutex_;
    bool noted_ = false;
};

}  // namespace gg::cuda
