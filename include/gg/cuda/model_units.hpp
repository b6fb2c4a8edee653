// All source text that a model needs on a chip: the units of its own kernels, and those that every model has.
#pragma once

#include <set>
#include <utility>
#include <vector>

#include "gg/cuda/common_units.hpp"
#include "gg/cuda/source.hpp"
#include "gg/cuda/weight_format.hpp"

namespace gg::cuda {

namespace detail {

/// All units of a model: its own kernels, and those that every model has.
template <class Family>
std::vector<KernelUnit> all_units(const Dims& dims, const ModelFormats& formats, const Target& target) {
    std::vector<KernelUnit> units = kernel_units<Family>(dims, formats, target);
    std::set<DType> targets = {formats.head};
    for (const std::vector<BranchFormats>& layer : formats.layers)
        for (const BranchFormats& branch : layer) targets.insert({branch.first, branch.second});
    for (KernelUnit& unit : common_units({targets.begin(), targets.end()})) units.push_back(std::move(unit));
    return units;
}

}  // namespace detail

/// The units of source text that a file's model needs on a chip.
inline std::vector<CompileUnit> model_units(const gguf::File& file, const Target& target) {
    return host::with_bound_weights(file, [&](auto family, const Dims& dims, const auto& weights) {
        using Family = decltype(family);
        std::vector<CompileUnit> units;
        for (KernelUnit& unit : detail::all_units<Family>(dims, model_formats<Family>(weights), target))
            units.push_back(std::move(unit.unit));
        return units;
    });
}

}  // namespace gg::cuda
