// Where a model runs, chosen by name: "host", "cuda" (the first GPU that can compute), "cuda:N", or "auto" (a
// GPU if there is one, else the host). GPUs are reached through GpuBackend, so that a program without a CUDA
// toolkit compiles this too.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "gg/gguf/file.hpp"
#include "gg/model/session.hpp"

namespace gg {

/// A GPU that can compute, or why there is none.
struct GpuSearch {
    std::optional<int> gpu = {};  ///< CUDA's number of it
    std::string problem = {};     ///< what was found instead; a sentence without its full stop
    std::string remedy = {};      ///< a sentence, or empty
};

/// A backend that computes on GPUs; empty in a program without one. gg::cuda::gpu_backend() makes it.
struct GpuBackend {
    /// Looks at the GPU of number `wanted`, or else for the first that can compute. Throws nothing for want
    /// of a driver or a GPU.
    std::function<GpuSearch(std::optional<int> wanted)> find = {};
    /// Loads a model onto a GPU.
    std::function<std::unique_ptr<Model>(const gguf::File&, int gpu, const LoadOptions&)> load = {};
};

struct DeviceChoice {
    std::optional<int> gpu = {};  ///< CUDA's number of it; none: the host
    std::string why_host = {};    ///< why auto leaves a GPU alone that seems to be there; else empty
};

namespace detail {

/// Whether this machine seems to have an NVIDIA GPU: its driver is loaded, or WSL passes one through.
inline bool sees_nvidia() {
    std::error_code ignored;
    for (const char* path : {"/proc/driver/nvidia", "/dev/nvidia0", "/usr/lib/wsl/lib/libcuda.so.1"})
        if (std::filesystem::exists(path, ignored)) return true;
    return false;
}

}  // namespace detail

/// Whether a text is auto, host, cuda or cuda:N.
inline bool is_device_name(std::string_view name) {
    const bool numbered = name.starts_with("cuda:") && name.size() > 5 && name.size() < 9 &&
                          name.find_first_not_of("0123456789", 5) == name.npos;
    return numbered || name == "auto" || name == "host" || name == "cuda";
}

/// Chooses before anything is read. Throws invalid_request for another name, and if a GPU is asked for that
/// cannot be used: only auto turns to the host.
inline DeviceChoice choose_device(const std::string& name, const GpuBackend& backend = {}) {
    if (!is_device_name(name))
        throw Error(ErrorCode::invalid_request,
                    {.field = "device", .expected = "auto, host, cuda or cuda:N", .found = name});
    if (name == "host") return {};
    std::optional<int> wanted;
    if (name.starts_with("cuda:")) wanted = std::stoi(name.substr(5));
    const GpuSearch search =
        backend.find ? backend.find(wanted)
                     : GpuSearch{.problem = "this program was built without CUDA",
                                 .remedy = "Build it with the CUDA backend, which needs the CUDA toolkit."};
    if (search.gpu) return {.gpu = search.gpu};
    if (name != "auto")
        throw Error(ErrorCode::invalid_request,
                    {.field = "device " + name + ": " + search.problem, .next_step = search.remedy});
    if (!detail::sees_nvidia()) return {};
    return {.why_host = search.remedy.empty() ? search.problem : search.problem + ". " + search.remedy};
}

}  // namespace gg
