// How a model is loaded onto a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gg/cuda/unit.hpp"

namespace gg {
class SyntheticFile;
}

namespace gg::cuda {

/// How the kernels of a decoding step are launched. All give the same bits; tests compare them.
enum class Launches {
    early_graph,  ///< one graph, in which kernels start before their predecessor ends where the chip can
    graph,        ///< one graph of kernels one after the other
    plain         ///< one launch a kernel
};

class StageLog;

struct LoadOptions {
    int device = 0;                            ///< as cudaSetDevice takes it
    std::uint64_t memory_limit = 0;            ///< the most device memory to use, bytes; 0: all of it
    int longest_step = 8192;                   ///< the most tokens of a prompt that are computed together
    int threads = 0;                           ///< host threads that load weights; 0: all
    std::span<const HeaderText> headers = {};  ///< the device headers that kernels are compiled from
    Launches launches = Launches::early_graph;
    std::vector<std::string> compile_options = {};  ///< more options for the compiler
    /// Whose file is loaded, if its weights are random: they are made on the device.
    const SyntheticFile* synthetic = nullptr;
    /// Of each of the pinned buffers that weights go through.
    std::size_t upload_bytes = std::size_t{8} << 20;
    /// Given, kernels are compiled to note times in it; it outlives the model.
    StageLog* stage_log = nullptr;
    /// What is being done, and how far it is.
    std::function<void(std::string_view what, std::uint64_t done, std::uint64_t total)> progress = {};
    /// Told what a user should know: conversions of weights, a cache that cannot be used.
    std::function<void(const std::string&)> note = {};
};

}  // namespace gg::cuda
