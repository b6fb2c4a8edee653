// NVRTC, NVIDIA's run-time compiler: from a source text and headers in memory to code for one architecture.
// The library is loaded when a Compiler is made, so a program that never compiles does not need it; nvrtc.h
// is not needed at all. NVRTC compiles in several threads at once, each with a program of its own.
//
// Version 13 is preferred; 12 serves too (12.8 or later for sm_120), because a driver runs machine code made
// by its own major version and by older ones.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/cuda/kernel_report.hpp"
#include "gg/cuda/shared_library.hpp"
#include "gg/cuda/unit.hpp"

namespace gg::cuda {

/// A unit's machine code, and what the compiler and the assembler said.
struct CompiledUnit {
    std::string name;
    std::string cubin;  ///< bytes: an ELF file for one architecture
    std::string log;
    std::vector<KernelReport> kernels;
    bool cached = false;  ///< read from the cache
};

/// How NVRTC is found.
inline const LibraryQuery& nvrtc_query() {
    static const LibraryQuery query = {.names = {"libnvrtc.so.13", "libnvrtc.so.12"},
                                       .purpose = "which compiles a model's kernels",
                                       .remedy =
                                           "Install it by \"pip install nvidia-cuda-nvrtc\", or install the "
                                           "CUDA toolkit 13, or set CUDA_HOME."};
    return query;
}

/// Options of every unit; part of the cache's key.
inline constexpr std::array compile_options = {"-std=c++20", "-lineinfo", "--ptxas-options=-v"};

class Compiler {
  public:
    /// Loads NVRTC. Throws cuda_error with the remedy.
    explicit Compiler(std::span<const std::filesystem::path> folders = library_folders())
        : library_(nvrtc_query(), folders) {
        library_.bind(create_, "nvrtcCreateProgram");
        library_.bind(destroy_, "nvrtcDestroyProgram");
        library_.bind(compile_, "nvrtcCompileProgram");
        library_.bind(log_size_, "nvrtcGetProgramLogSize");
        library_.bind(log_, "nvrtcGetProgramLog");
        library_.bind(cubin_size_, "nvrtcGetCUBINSize");
        library_.bind(cubin_, "nvrtcGetCUBIN");
        library_.bind(error_text_, "nvrtcGetErrorString");
        int (*version)(int*, int*) = nullptr;
        library_.bind(version, "nvrtcVersion");
        check(version(&major_, &minor_), "nvrtcVersion");
        find_architectures();
    }

    /// "NVRTC 13.0".
    std::string name() const { return "NVRTC " + std::to_string(major_) + "." + std::to_string(minor_); }
    const std::filesystem::path& path() const { return library_.path(); }

    /// Whether it makes code for an architecture such as "sm_90a".
    bool knows(std::string_view architecture) const {
        int number = 0;
        if (!architecture.starts_with("sm_")) return false;
        std::from_chars(architecture.data() + 3, architecture.data() + architecture.size(), number);
        return std::find(architectures_.begin(), architectures_.end(), number) != architectures_.end();
    }

    /// Throws cuda_error if it does not know the architecture.
    void require(std::string_view architecture) const {
        if (knows(architecture)) return;
        std::string known;
        for (const int number : architectures_)
            known += (known.empty() ? "sm_" : ", sm_") + std::to_string(number);
        throw Error(ErrorCode::cuda_error,
                    {.file = path().string(),
                     .expected = "a compiler that makes code for " + std::string(architecture),
                     .found = name() + ", which knows " + known,
                     .next_step = "Install a newer one by \"pip install -U nvidia-cuda-nvrtc\"."});
    }

    /// Compiles a unit. `file` names the source in the code's line table. May be called from several threads.
    /// Throws cuda_error with the compiler's log.
    CompiledUnit compile(const CompileUnit& unit, std::span<const HeaderText> headers,
                         const std::string& architecture, const std::string& file) const {
        require(architecture);
        Program program(*this, unit, headers, file);
        std::vector<std::string> options = {"--gpu-architecture=" + architecture};
        options.insert(options.end(), compile_options.begin(), compile_options.end());
        // NVRTC's own cache, which it has since 12.9, gives no report of registers and spills on a hit.
        if (major_ * 100 + minor_ >= 1209) options.push_back("--no-cache");
        options.insert(options.end(), unit.options.begin(), unit.options.end());
        std::vector<const char*> pointers;
        for (const std::string& option : options) pointers.push_back(option.c_str());
        const int result = compile_(program.handle, static_cast<int>(pointers.size()), pointers.data());
        CompiledUnit out;
        out.name = unit.name;
        out.log = text(program.handle, log_size_, log_);
        remove_times(out.log);
        if (result != 0) refuse_source(unit, architecture, result, out.log);
        out.cubin = text(program.handle, cubin_size_, cubin_);
        out.kernels = read_reports(out.log);
        return out;
    }

  private:
    using Handle = void*;

    /// A program of NVRTC's, destroyed with its scope.
    struct Program {
        Program(const Compiler& owner, const CompileUnit& unit, std::span<const HeaderText> headers,
                const std::string& file)
            : compiler(owner) {
            // NVRTC wants texts that end in a zero byte.
            std::vector<std::string> strings;
            for (const HeaderText& header : headers) strings.emplace_back(header.text);
            for (const HeaderText& header : headers) strings.emplace_back(header.name);
            std::vector<const char*> pointers;
            for (const std::string& string : strings) pointers.push_back(string.c_str());
            compiler.check(
                compiler.create_(&handle, unit.source.c_str(), file.c_str(), static_cast<int>(headers.size()),
                                 pointers.data(), pointers.data() + headers.size()),
                "nvrtcCreateProgram");
        }
        Program(const Program&) = delete;
        Program& operator=(const Program&) = delete;
        ~Program() { compiler.destroy_(&handle); }

        const Compiler& compiler;
        Handle handle = nullptr;
    };

    void check(int result, const char* what) const {
        if (result == 0) return;
        throw Error(ErrorCode::cuda_error, {.file = path().string(),
                                            .field = what,
                                            .found = "the error " + std::string(error_text_(result))});
    }

    void find_architectures() {
        int (*count)(int*) = nullptr;
        int (*list)(int*) = nullptr;
        library_.bind(count, "nvrtcGetNumSupportedArchs");
        library_.bind(list, "nvrtcGetSupportedArchs");
        int number = 0;
        check(count(&number), "nvrtcGetNumSupportedArchs");
        architectures_.resize(static_cast<std::size_t>(std::max(number, 0)));
        check(list(architectures_.data()), "nvrtcGetSupportedArchs");
    }

    std::string text(Handle program, int (*size_of)(Handle, std::size_t*), int (*get)(Handle, char*)) const {
        std::size_t size = 0;
        check(size_of(program, &size), "the size of a program's result");
        std::string bytes(size, '\0');
        if (size > 0) check(get(program, bytes.data()), "a program's result");
        return bytes;
    }

    /// Takes out what differs from one compilation of a source to the next: how long it took.
    static void remove_times(std::string& log) {
        while (!log.empty() && log.back() == '\0') log.pop_back();
        for (std::size_t at = 0; (at = log.find("Compile time = ", at)) != log.npos;) {
            const std::size_t begin = log.rfind('\n', at) + 1, end = log.find('\n', at);
            log.erase(begin, end == log.npos ? end : end - begin + 1);
            at = begin;
        }
    }

    [[noreturn]] void refuse_source(const CompileUnit& unit, const std::string& architecture, int result,
                                    const std::string& log) const {
        throw Error(ErrorCode::cuda_error,
                    {.file = "kernels of " + unit.name,
                     .expected = "source that " + name() + " compiles for " + architecture,
                     .found = std::string(error_text_(result)) + "\n" + log});
    }

    SharedLibrary library_;
    int major_ = 0, minor_ = 0;
    std::vector<int> architectures_;
    int (*create_)(Handle*, const char*, const char*, int, const char* const*, const char* const*) = nullptr;
    int (*destroy_)(Handle*) = nullptr;
    int (*compile_)(Handle, int, const char* const*) = nullptr;
    int (*log_size_)(Handle, std::size_t*) = nullptr;
    int (*log_)(Handle, char*) = nullptr;
    int (*cubin_size_)(Handle, std::size_t*) = nullptr;
    int (*cubin_)(Handle, char*) = nullptr;
    const char* (*error_text_)(int) = nullptr;
};

}  // namespace gg::cuda
