// The options that say where a model runs, loading it there, and the memory at hand.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "gg/model/device_choice.hpp"
#include "option_values.hpp"

namespace gg::runner {

/// --device, --threads and --vram-limit.
struct ComputeOptions {
    std::string device = "auto";
    int threads = 0;               ///< 0: all
    std::uint64_t vram_limit = 0;  ///< bytes; 0: none
};

void add_compute_options(CLI::App& command, ComputeOptions& options);

/// Where a model will run.
struct DeviceChoice {
    gg::DeviceChoice place;
    std::uint64_t memory_limit = 0;  ///< bytes of the GPU's memory; 0: all of it
    int threads = 0;                 ///< of the host; 0: all
};

/// Decides it before anything is read. Throws if a GPU is asked for by name and cannot be used; only auto
/// turns to the host.
DeviceChoice choose_device(const ComputeOptions& options);

/// Loads the model and says on standard error where it runs. A GPU on which that fails is an error.
std::unique_ptr<Model> load_model(const gguf::File& file, const DeviceChoice& device);

/// "11.3 GiB of memory that are left beside the weights"; empty if nobody knows.
std::string memory_left(const Model& model);

/// Throws out_of_memory, naming `source`, if a session that scores `tokens` tokens does not fit into memory.
/// The last token is only predicted, so it needs no place.
void require_memory_to_score(const Model& model, int tokens, const std::string& source,
                             const std::string& next_step);

}  // namespace gg::runner
