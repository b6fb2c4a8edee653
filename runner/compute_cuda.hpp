// What the runner asks of the CUDA backend. A build without it answers too.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "gg/model/session.hpp"

namespace gg::runner {

/// A GPU that can compute, or why there is none.
struct GpuSearch {
    std::optional<int> gpu = {};  ///< CUDA's number of it
    std::string problem = {};     ///< what was found instead; a sentence without its full stop
    std::string remedy = {};      ///< a sentence, or empty
};

/// Looks at the GPU of number `wanted`, or else for the first that can compute. Throws nothing for want of a
/// driver or a GPU.
GpuSearch find_gpu(std::optional<int> wanted);

/// Loads the model onto a GPU, with progress on standard error.
std::unique_ptr<Model> load_on_gpu(const gguf::File& file, int gpu);

}  // namespace gg::runner
