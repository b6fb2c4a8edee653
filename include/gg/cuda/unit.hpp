// What is compiled when a model is loaded, and for which chip.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gg::cuda {

/// A chip, as far as source text and code depend on it.
struct Target {
    std::string architecture;  ///< as the compiler names it: "sm_90a"
    int multiprocessors = 0;
};

/// One source text, compiled by itself.
struct CompileUnit {
    std::string name;    ///< for messages and file names: letters, digits, '_', '-'
    std::string source;  ///< includes device headers as "gg/cuda/x.cuh"; kernels are extern "C"
    std::vector<std::string> options = {};
};

/// A header that compile units include, held in memory.
struct HeaderText {
    std::string_view name;  ///< as it is included: "gg/cuda/x.cuh"
    std::string_view text;
};

}  // namespace gg::cuda
