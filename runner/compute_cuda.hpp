// The CUDA backend behind a header that includes none of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "gg/model/device_choice.hpp"

namespace gg::runner {

/// Empty in a build without CUDA. `memory_limit`: bytes of a GPU's memory that a model may use; 0: all.
GpuBackend gpu_backend(std::uint64_t memory_limit = 0);

/// A GPU as memory plans need it.
struct GpuDescription {
    std::string name;
    std::uint64_t bytes = 0;   ///< of its memory
    std::string architecture;  ///< as the compiler names it
    int multiprocessors = 0;
};

/// The GPU that auto takes; nothing if there is none.
std::optional<GpuDescription> describe_gpu();

}  // namespace gg::runner
