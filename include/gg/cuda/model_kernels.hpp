// A model's compiled kernels on the current device, found by name.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <span>
#include <string>
#include <vector>

#include "gg/cuda/compiler.hpp"
#include "gg/cuda/module.hpp"
#include "gg/cuda/source.hpp"
#include "gg/cuda/stage_args.hpp"
#include "gg/cuda/stamps.hpp"

namespace gg::cuda {

/// A kernel and how it is launched.
struct StageKernel {
    Kernel kernel;
    Launch launch = {};

    /// Enqueues it with as many blocks as the kernel itself says, or `least`: the others stand by.
    template <class Args>
    void enqueue(cudaStream_t stream, const Args& args, bool programmatic, int least = 0) const {
        enqueue(static_cast<unsigned>(launch.blocks > least ? launch.blocks : least), stream, args,
                programmatic);
    }
    /// With `grid` blocks.
    template <class Args>
    void enqueue(dim3 grid, cudaStream_t stream, const Args& args, bool programmatic) const {
        kernel.launch(grid, static_cast<unsigned>(launch.threads), stream, args, programmatic);
    }
};

class ModelKernels {
  public:
    /// Loads the compiled units, which belong to `units` in their order. Throws cuda_error.
    ModelKernels(std::span<const KernelUnit> units, std::span<const CompiledUnit> compiled) {
        for (std::size_t i = 0; i < units.size(); ++i) {
            const Module& module = modules_.emplace_back(compiled[i].cubin, units[i].unit.name);
            const std::vector<std::string>& names = units[i].kernels;
            names_.push_back(names);
            const Module::Global table = module.global("gg_launches");
            if (table.bytes != names.size() * sizeof(Launch))
                throw Error(ErrorCode::internal,
                            {.field = "kernels of " + units[i].unit.name,
                             .expected = std::to_string(names.size() * sizeof(Launch)) + " bytes of launches",
                             .found = std::to_string(table.bytes)});
            std::vector<Launch> launches(names.size());
            check(cudaMemcpy(launches.data(), table.address, table.bytes, cudaMemcpyDeviceToHost),
                  "reading the launches of " + units[i].unit.name);
            for (std::size_t k = 0; k < names.size(); ++k) {
                const auto shared = static_cast<std::size_t>(launches[k].shared_bytes);
                kernels_.emplace(names[k], StageKernel{module.kernel(names[k], shared), launches[k]});
            }
        }
    }

    /// The kernel of a specification; an empty kernel for an empty one.
    const StageKernel& operator[](const KernelSpec& spec) const {
        static const StageKernel none;
        if (spec.name.empty()) return none;
        const auto found = kernels_.find(spec.name);
        if (found == kernels_.end())
            throw Error(ErrorCode::internal, {.field = "kernels", .expected = spec.name, .found = "none"});
        return found->second;
    }

    /// Lets kernels that were compiled with GG_STAMPS write to a log.
    void set_stamps(StampLog log) const {
        for (log.unit = 0; log.unit < modules_.size(); ++log.unit) {
            const Module::Global global = modules_[log.unit].global("gg_stamp_log");
            check(cudaMemcpy(global.address, &log, sizeof log, cudaMemcpyHostToDevice), "setting a log");
        }
    }
    /// The name of a kernel in a stamp.
    const std::string& name_of(const Stamp& stamp) const {
        return names_[stamp.kernel / stamped_kernels][stamp.kernel % stamped_kernels];
    }

  private:
    std::vector<std::vector<std::string>> names_;  ///< by module
    std::vector<Module> modules_;
    std::map<std::string, StageKernel> kernels_;
};

}  // namespace gg::cuda
