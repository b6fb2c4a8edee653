// The memory plan of a model on the host.
#pragma once

#include <algorithm>

#include "gg/host/plan.hpp"
#include "gg/model/memory_plan.hpp"

namespace gg::host {

/// For sessions of `context` tokens with `threads` threads.
inline MemoryPlan memory_plan(const ModelInfo& info, int context, int sessions, int threads) {
    MemoryPlan plan;
    plan.context = context;
    plan.sessions = sessions;
    plan.step = std::min(context, cache_shape.chunk);
    plan.weights = info.weight_bytes;
    plan.cache = cache_bytes(info.dims, context, cache_shape);
    plan.reading =
        (session_bytes(info, context, threads) - plan.cache) * static_cast<std::uint64_t>(sessions);
    return plan;
}

}  // namespace gg::host
