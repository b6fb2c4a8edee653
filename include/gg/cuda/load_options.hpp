// How a model is loaded onto a GPU.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gg/cuda/unit.hpp"

namespace gg::cuda {

/// How the kernels of a decoding step are launched. All give the same bits; tests compare them.
enum class Launches {
    early_graph,  ///< one graph, in which kernels start before their predecessor ends where the chip can
    graph,        ///< one graph of kernels one after the other
    plain         ///< one launch a kernel
};

struct LoadOptions {
    int device = 0;                            ///< as cudaSetDevice takes it
    int threads = 0;                           ///< host threads that load weights; 0: all
    std::span<const HeaderText> headers = {};  ///< the device headers that kernels are compiled from
    Launches launches = Launches::early_graph;
    std::vector<std::string> compile_options = {};  ///< more options for the compiler
    /// What is being done, and how far it is.
    std::function<void(std::string_view what, std::uint64_t done, std::uint64_t total)> progress = {};
    /// Told what a user should know: conversions of weights, a cache that cannot be used.
    std::function<void(const std::string&)> note = {};
};

}  // namespace gg::cuda
