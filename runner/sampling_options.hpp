// The options that say how the next token is chosen and where the text ends.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "gg/text/sampler.hpp"

namespace gg::runner {

/// --temp to --seed, and --stop.
struct SamplingOptions {
    text::SamplerOptions sampler;
    bool seeded = false;             ///< --seed was given
    std::vector<std::string> stops;  ///< escapes resolved
};

void add_sampling_options(CLI::App& command, SamplingOptions& options);

}  // namespace gg::runner
