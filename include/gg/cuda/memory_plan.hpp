// The memory plan of a model on a GPU: computed from the file alone, without a GPU, a driver or compiled
// kernels, by the functions that size the allocations themselves.
//
// The plan also chooses how many tokens of a prompt are computed together: long steps use the weights better,
// and their workspace grows with them. It takes an eighth of what the model leaves of the memory at most, so
// that there is room for several sessions; and a session that does not fit beside it gets shorter steps.
#pragma once

#include <limits>

#include "gg/cuda/device_budget.hpp"
#include "gg/cuda/weight_plan.hpp"
#include "gg/cuda/workspace_sizes.hpp"
#include "gg/model/memory_plan.hpp"

namespace gg::cuda {

/// A chip to plan for where none is at hand: workspaces grow with the number of multiprocessors and as shared
/// memory shrinks, and no chip that gg compiles for has more of the one or less of the other.
inline Target largest_target() {
    return {"sm_120a", 192};
}

/// A model's memory for any context.
class MemoryPlanner {
  public:
    /// Of a bound model with `formats` on a chip.
    template <class Family>
    static MemoryPlanner of(const ModelWeights<Family, host::HostStore>& bound, const Dims& dims,
                            const ModelFormats& formats, const Target& target) {
        MemoryPlanner planner;
        planner.dims_ = dims;
        planner.weights_ = weight_bytes<Family>(bound, dims);
        planner.prefill_ = prefill_needs<Family>(formats);
        for (const int rows : decode_rows)
            planner.decoding_ += decode_bytes(dims, partial_sums<Family>(dims, formats, target, rows),
                                              target.multiprocessors, rows);
        return planner;
    }

    /// Of a file of any family that gg has. Reads metadata and vectors. Refuses a file that does not fit its
    /// family.
    static MemoryPlanner of(const gguf::File& file, const Target& target) {
        return host::with_bound_weights(file, [&](auto family, const Dims& dims, const auto& bound) {
            using Family = decltype(family);
            return of<Family>(bound, dims, model_formats<Family>(bound), target);
        });
    }

    /// Of the workspace for reading prompts `rows` tokens at a time.
    std::uint64_t reading_bytes(int rows) const { return prefill_bytes(dims_, prefill_, rows); }

    /// The longest step that the model takes in `memory` bytes, overhead included, whatever its sessions: its
    /// workspace is at most an eighth of what is left beside weights and other workspaces. At most `most`.
    int longest_step(std::uint64_t memory, int most = prefill_steps[0]) const {
        const std::uint64_t fixed = device_overhead_bytes + weights_ + decoding_ + drawing_bytes(dims_);
        const std::uint64_t left = memory > fixed ? memory - fixed : 0;
        return choose_step(dims_.context, most, [&](int rows) { return reading_bytes(rows) <= left / 8; });
    }

    /// For `sessions` sessions of `context` tokens: with the longest steps, up to longest_step(), with which
    /// all of it fits into `memory` bytes; with the shortest if it fits with none.
    MemoryPlan plan(int context, int sessions = 1,
                    std::uint64_t memory = std::numeric_limits<std::uint64_t>::max()) const {
        MemoryPlan plan;
        plan.context = context;
        plan.sessions = sessions;
        plan.weights = weights_;
        plan.loading = loading_bytes;
        plan.cache = cache_bytes(dims_, context, cuda_cache_shape);
        plan.decoding = decoding_;
        plan.drawing =
            drawing_bytes(dims_) + static_cast<std::uint64_t>(sessions) * session_state_bytes(dims_, context);
        plan.overhead = device_overhead_bytes;
        plan.step = choose_step(context, longest_step(memory), [&](int rows) {
            plan.reading = reading_bytes(rows);
            return plan.total() <= memory;
        });
        return plan;
    }

    const Dims& dims() const { return dims_; }

    /// The largest context, at most the model's own, of `sessions` sessions in `memory` bytes, overhead
    /// included; 0 if none fits.
    int largest_context(std::uint64_t memory, int sessions = 1) const {
        return gg::largest_context(dims_.context, memory,
                                   [&](int context) { return plan(context, sessions, memory).total(); });
    }

  private:
    MemoryPlanner() = default;

    Dims dims_;
    PrefillNeeds prefill_;
    std::uint64_t weights_ = 0, decoding_ = 0;
};

/// Throws out_of_memory if a session of `context` tokens does not fit: with the need, what the budget has
/// available of which device, and the largest context that fits. need(context) counts what is not reserved
/// yet; if a context fits, so do all shorter ones.
template <class Need>
void require_context(const DeviceBudget& budget, int context, Need&& need) {
    const std::uint64_t bytes = need(context);
    if (bytes <= budget.available()) return;
    const int fits = largest_context(context, budget.available(), need);
    budget.refuse(bytes, "a session of " + std::to_string(context) + " tokens",
                  fits > 0 ? "The largest context that fits is " + std::to_string(fits) + "." : "");
}

/// Throws out_of_memory if the planned model does not fit into a budget of which nothing is reserved, even
/// with the shortest context.
inline void require_model(const DeviceBudget& budget, const MemoryPlanner& planner, const std::string& file) {
    const MemoryPlan least = planner.plan(1, 1, budget.total());
    if (least.total() - least.overhead <= budget.available()) return;
    budget.refuse(least.total() - least.overhead, file + ": " + bytes_text(least.weights) + " of weights",
                  "No context fits: use a GPU with more memory, or the host.");
}

}  // namespace gg::cuda
