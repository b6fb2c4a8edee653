// The memory that a model and its sessions take, part by part, known before any of it is allocated. Every
// backend computes one of its own: host/memory_plan.hpp, cuda/memory_plan.hpp.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gg {

/// Bytes for `sessions` sessions of `context` tokens each.
struct MemoryPlan {
    int context = 0;
    int sessions = 1;
    int step = 0;               ///< tokens of a prompt that are computed together
    std::uint64_t weights = 0;  ///< on the host those of the file, which are mapped
    /// Beside the weights while they are loaded; freed before anything is computed.
    std::uint64_t loading = 0;
    std::uint64_t cache = 0;  ///< keys and values of one session
    /// Workspace, by what needs it. A host session has one scratch space for everything, counted as reading.
    std::uint64_t decoding = 0;  ///< steps of a few tokens
    std::uint64_t reading = 0;   ///< prompts
    std::uint64_t drawing = 0;   ///< the next tokens, and the logits that sessions keep
    /// What the driver takes for itself: context, kernels, graphs; 0 on the host.
    std::uint64_t overhead = 0;

    /// The caches of all sessions.
    std::uint64_t caches() const { return cache * static_cast<std::uint64_t>(sessions); }
    std::uint64_t workspace() const { return decoding + reading + drawing; }
    /// The most that is held at a time: when sessions run, or while the weights are loaded.
    std::uint64_t total() const { return overhead + weights + std::max(loading, caches() + workspace()); }
};

/// The largest context, at most `most`, for which need(context) bytes fit into `memory`; 0 if none does. The
/// need grows with the context.
template <class Need>
int largest_context(int most, std::uint64_t memory, Need&& need) {
    if (need(most) <= memory) return most;
    int fits = 0, too_long = most;
    while (too_long - fits > 1) {
        const int middle = fits + (too_long - fits) / 2;
        (need(middle) <= memory ? fits : too_long) = middle;
    }
    return fits;
}

}  // namespace gg
