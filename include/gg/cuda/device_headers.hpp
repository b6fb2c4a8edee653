// The headers that device code includes, as text inside the program. The CMake target gg::cuda defines it
// (cuda/embed_headers.cmake); a program that is built otherwise gives LoadOptions::headers its own.
#pragma once

#include <span>

#include "gg/cuda/unit.hpp"

namespace gg::cuda {

/// Every gg/cuda/*.cuh, gg/block/*.hpp and gg/layer/*.hpp, and all that they include. The texts live as long
/// as the program.
std::span<const HeaderText> device_headers();

}  // namespace gg::cuda
