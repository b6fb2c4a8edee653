// The options that say where a model runs, loading it there, and the memory at hand.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "gg/model/session.hpp"

namespace gg::runner {

/// --device and --threads.
struct ComputeOptions {
    std::string device = "auto";
    int threads = 0;  ///< 0: all
};

void add_compute_options(CLI::App& command, ComputeOptions& options);

/// A validator for numbers from `low` to `high`; a NaN is none.
CLI::Validator number_range(double low, double high, const std::string& text);

/// Refuses a device that this build does not have.
void require_device(const ComputeOptions& options);

/// Loads the model and says on standard error where it runs.
std::unique_ptr<Model> load_model(const gguf::File& file, const ComputeOptions& options);

/// Bytes left for sessions once `weight_bytes` are in memory; nothing if the system does not tell. Ask before
/// loading.
std::optional<std::uint64_t> session_memory(std::uint64_t weight_bytes);

/// The largest context, at most `wanted`, whose session fits into `memory`; 0 if none does.
int fitting_context(const Model& model, int wanted, std::optional<std::uint64_t> memory);

/// Throws out_of_memory, naming `source`, if a session that scores `tokens` tokens does not fit into
/// `memory`. The last token is only predicted, so it needs no place.
void require_memory_to_score(const Model& model, int tokens, std::optional<std::uint64_t> memory,
                             const std::string& source, const std::string& next_step);

}  // namespace gg::runner
