// Kernels that do not depend on a model's dimensions, compiled once for all models: rearranging weights, and
// drawing tokens.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "gg/cuda/source.hpp"
#include "gg/cuda/weight_format.hpp"

namespace gg::cuda {

namespace detail {

inline KernelUnit common_unit(const std::string& name, const std::string& header,
                              const std::vector<std::pair<std::string, std::string>>& kernels) {
    KernelUnit out{{name, "#include \"gg/cuda/launch_of.cuh\"\n#include \"" + header + "\"\n\n", {}}, {}};
    write_kernels(kernels, out);
    return out;
}

}  // namespace detail

/// The kernel that makes tiles of a format.
inline KernelSpec repack_spec(DType target) {
    const std::string name(info(target).name);
    return {"repack_" + name, "repack_" + name, "gg::cuda::Repack<" + format_text(target) + ">"};
}

/// The kernels of the sampler, in the order in which they run; the last adds tokens to a history.
inline constexpr const char* sampler_stages[] = {"SamplerMaximum", "SamplerCollect", "SamplerChoose",
                                                 "SamplerAccept"};
inline KernelSpec sampler_spec(int stage) {
    return {"sampler", sampler_stages[stage], std::string("gg::cuda::") + sampler_stages[stage]};
}

/// The kernel that makes random weights, and its unit.
inline KernelSpec synthesize_spec() {
    return {"synthesize", "synthesize", "gg::cuda::Synthesize"};
}
inline KernelUnit synthesize_unit() {
    const KernelSpec spec = synthesize_spec();
    return detail::common_unit(spec.unit, "gg/cuda/synthesize.cuh", {{spec.name, spec.type}});
}

/// Units for rearranging weights into the formats that a model has, and for the sampler.
inline std::vector<KernelUnit> common_units(const std::vector<DType>& targets) {
    std::vector<KernelUnit> units;
    for (const DType target : targets) {
        const KernelSpec spec = repack_spec(target);
        units.push_back(detail::common_unit(spec.unit, "gg/cuda/repack.cuh", {{spec.name, spec.type}}));
    }
    std::vector<std::pair<std::string, std::string>> kernels;
    for (int i = 0; i < 4; ++i) kernels.emplace_back(sampler_spec(i).name, sampler_spec(i).type);
    units.push_back(detail::common_unit("sampler", "gg/cuda/sampler.cuh", kernels));
    // The host's sampler rounds every product; the device's must too, to draw the same ids.
    units.back().unit.options.push_back("-fmad=false");
    return units;
}

}  // namespace gg::cuda
