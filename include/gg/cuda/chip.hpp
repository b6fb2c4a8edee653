// The shared memory of the chips that gg compiles for.
#pragma once

#include <string_view>

#include "gg/cuda/plan.hpp"
#include "gg/cuda/unit.hpp"

namespace gg::cuda {

/// The multiprocessor of an architecture. Shared memory: 228 KiB from sm_90 on, 164 KiB on sm_80 and sm_87,
/// 100 KiB on the others; a block may have 1 KiB less, and every block costs 1 KiB of it.
inline Chip chip_of(const Target& target) {
    const std::string_view name = target.architecture;
    int kibibytes = 100;
    if (name.starts_with("sm_90") || name.starts_with("sm_100") || name.starts_with("sm_103"))
        kibibytes = 228;
    else if (name.starts_with("sm_80") || name.starts_with("sm_87"))
        kibibytes = 164;
    return {target.multiprocessors, (kibibytes / 2 - 1) * 1024, (kibibytes - 1) * 1024};
}

/// Whether kernels may start before their predecessor in the stream ends.
inline bool launches_early(const Target& target) {
    const std::string_view name = target.architecture;
    return !(name.starts_with("sm_7") || name.starts_with("sm_8"));
}

}  // namespace gg::cuda
