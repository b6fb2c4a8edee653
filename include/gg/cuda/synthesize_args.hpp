// What making random weights on the device (synthesize.cuh) is told. Includes nothing from the system.
#pragma once

#include "gg/model/synthetic_blocks.hpp"

namespace gg::cuda {

/// Some blocks of a tensor; an element is a block of a float type.
struct SynthesizeArgs {
    SyntheticRecipe recipe;
    unsigned long long first, count;  ///< blocks
    unsigned char* out;               ///< at any address; of floats, at a multiple of their size
};

inline constexpr int synthesize_threads = 256;

/// What a thread makes at once: a block, or the floats that share a counter.
GG_HD constexpr unsigned long long synthesize_units(const SynthesizeArgs& args) {
    const bool is_block = args.recipe.type == 8 || args.recipe.type == 39;
    if (args.count == 0 || is_block) return args.count;
    return (args.first + args.count - 1) / 4 - args.first / 4 + 1;
}
/// A grid of at most some thousand blocks, each of which goes on until all is made.
GG_HD constexpr unsigned synthesize_blocks(const SynthesizeArgs& args) {
    const unsigned long long blocks = (synthesize_units(args) + synthesize_threads - 1) / synthesize_threads;
    return blocks < 4096 ? static_cast<unsigned>(blocks) : 4096U;
}

}  // namespace gg::cuda
