// What gg perplexity measured, as text and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "gg/model/perplexity.hpp"
#include "gg/model/reference_file.hpp"

namespace gg::runner {

/// What the windows gave so far. The difference is the model's log p less the reference's.
struct PerplexitySums {
    explicit PerplexitySums(const Windows& windows)
        : nll(windows), kl(windows), same_top(windows), logprob_difference(windows) {}

    BlockMean nll;
    BlockMean kl, same_top, logprob_difference;  // of no window if there is no reference
    std::vector<double> each_kl;                 // of every counted token
};

/// The circumstances of a result.
struct PerplexityResult {
    Windows windows;
    std::size_t tokens;  ///< of the whole text
    bool partial;        ///< interrupted before the last window
    std::optional<double> bits_per_byte;
    const ReferenceModel* reference;  ///< null if there is none
};

/// Both want at least one window, and reorder each_kl.
nlohmann::ordered_json result_json(PerplexitySums& sums, const PerplexityResult& result);
std::string result_text(PerplexitySums& sums, const PerplexityResult& result);

}  // namespace gg::runner
