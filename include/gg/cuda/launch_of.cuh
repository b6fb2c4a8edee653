// What the source text of a model's kernels (source.hpp) needs besides the stages: how a stage is launched,
// and the kernel around it.
#pragma once

#include "gg/cuda/stage_args.hpp"

namespace gg::cuda {

/// A stage's launch. Stages whose grid depends on the step have 0 blocks here.
template <class Stage>
GG_HD constexpr Launch launch_of() {
    if constexpr (requires { Stage::plan; })
        return {Stage::plan.blocks, Stage::plan.threads(), Stage::plan.shared_bytes, Stage::plan.slots};
    else
        return {0, Stage::threads, Stage::shared_bytes, 0};
}

/// Blocks that a multiprocessor should hold, for launch bounds.
template <class Stage>
GG_HD constexpr int residency_of() {
    if constexpr (requires { Stage::residency; })
        return Stage::residency;
    else if constexpr (requires { Stage::blocks; })
        return Stage::blocks;
    else
        return 1;
}

/// The largest of several numbers.
template <class... Ints>
GG_HD constexpr int largest(int first, Ints... rest) {
    ((first = rest > first ? rest : first), ...);
    return first;
}

}  // namespace gg::cuda
