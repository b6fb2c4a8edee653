// The headers that device code includes, as text inside the program.
#pragma once

#include <span>

#include "gg/cuda/unit.hpp"

namespace gg::runner {

/// Every gg/cuda/*.cuh and all that they include. The texts live as long as the program.
std::span<const cuda::HeaderText> device_headers();

}  // namespace gg::runner
