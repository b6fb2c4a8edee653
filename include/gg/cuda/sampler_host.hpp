// The host's side of the sampler on a GPU: settings from gg::text::SamplerOptions, ids back, or the Error
// that gg::text::Sampler throws in the same case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/text/sampler.hpp"

namespace gg::cuda {

/// Entries of the ring of recent tokens: 0 if the penalty is off.
inline int sampler_recent(const text::SamplerOptions& options) {
    return options.repeat_penalty == 1.0F ? 0 : options.repeat_window;
}

/// The state of a new or reset sampler, to be copied to the device. `blocked` and `recent` are device memory:
/// blocked_words (null: nothing is blocked), and sampler_recent(options) ints. `drawn` is host memory that
/// the device reaches, or null. Throws for options out of range.
inline SamplerState sampler_state(const text::SamplerOptions& options, const unsigned* blocked, int* recent,
                                  Drawn* drawn) {
    text::Sampler(options, 1);  // its checks
    return {{options.temperature, options.top_k, options.top_p, options.min_p, options.repeat_penalty,
             options.repeat_window, options.seed, blocked, recent, drawn},
            0,
            0,
            0};
}

/// SamplerSettings::blocked: a bit for each id that must not be drawn.
inline std::vector<unsigned> blocked_words(int vocabulary,
                                           const std::function<bool(std::int32_t)>& sampleable) {
    std::vector<unsigned> words(static_cast<std::size_t>((vocabulary + 31) / 32));
    for (std::int32_t id = 0; id < vocabulary; ++id)
        if (!sampleable(id)) words[static_cast<std::size_t>(id / 32)] |= 1U << id % 32;
    return words;
}

/// An id that the device drew at `step`. Throws internal if it is a SamplerStatus.
inline std::int32_t drawn_id(int id, std::uint64_t step) {
    if (id >= 0) return id;
    throw Error(ErrorCode::internal,
                {.field = "logits of step " + std::to_string(step),
                 .found = id == sampler_all_infinite ? "every logit that may be drawn is -infinity"
                                                     : "NaN for id " + std::to_string(sampler_nan - id)});
}

}  // namespace gg::cuda
