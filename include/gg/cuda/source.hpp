// The source text of a model's kernels: its dimensions as a struct of constants, its composition by name, and
// one extern "C" kernel for each specification. A library user writes the same few lines by hand and compiles
// them with nvcc.
//
// Each unit of text exports, besides its kernels, gg_launches: how each is launched, in their order.
#pragma once

#include <algorithm>
#include <charconv>
#include <map>
#include <string>
#include <vector>

#include "gg/cuda/chip.hpp"
#include "gg/cuda/kernel_specs.hpp"
#include "gg/cuda/unit.hpp"
#include "gg/model/info.hpp"

namespace gg::cuda {

/// Tokens that a layer with a window appends at once at most: its ring holds them beside the window. Longer
/// steps of prefill go through such a layer in parts.
inline constexpr int cuda_prefill_chunk = 2048;

/// A unit's kernels by name, in the order of gg_launches.
struct KernelUnit {
    CompileUnit unit;
    std::vector<std::string> kernels;
};

namespace detail {

/// A float32 as C++ has it, exactly.
inline std::string float_text(float value) {
    char text[64];
    const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific, 9).ptr;
    return std::string(text, end) + "f";
}

inline std::string dims_text(const Dims& dims, const Chip& chip) {
    std::string text = "struct Dims {\n";
    const auto line = [&](const char* name, int value) {
        text += "    static constexpr int " + std::string(name) + " = " + std::to_string(value) + ";\n";
    };
    line("hidden", dims.hidden);
    line("heads", dims.heads);
    line("kv_heads", dims.kv_heads);
    line("head_dim", dims.head_dim);
    line("feed_forward", dims.feed_forward);
    line("experts", dims.experts);
    line("experts_used", dims.experts_used);
    line("expert_feed_forward", dims.expert_feed_forward);
    line("vocabulary", dims.vocabulary);
    line("window", dims.window);
    line("prefill_chunk", cuda_prefill_chunk);
    line("multiprocessors", chip.multiprocessors);
    text += "    static constexpr float norm_epsilon = " + float_text(dims.norm_epsilon) + ";\n";
    text += "    static constexpr gg::cuda::Chip chip = {" + std::to_string(chip.multiprocessors) + ", " +
            std::to_string(chip.shared_half) + ", " + std::to_string(chip.shared_whole) + "};\n};\n\n";
    return text;
}

/// Names of the composition's parts.
template <class Family>
std::string composition_text() {
    std::string text = "using Composition = " + std::string(Family::composition_type) +
                       ";\nusing Layer = Composition::Layer;\n";
    int norms = 0;
    for_each_branch<typename Family::Layer>([&](auto r, auto b) {
        const std::string i = std::to_string(r.value), j = std::to_string(b.value);
        if (r.value == norms) {
            text += "using N" + i + " = gg::PartOf<Layer, " + i + ">::Norm;\n";
            ++norms;
        }
        text += "using B" + i + "_" + j + " = gg::PartOf<gg::PartOf<Layer, " + i + ">, " + j + ">;\n";
    });
    return text + "\n";
}

/// Appends kernels, pairs of name and type, and the table of their launches.
template <class Kernels>
void write_kernels(const Kernels& kernels, KernelUnit& out) {
    std::string table;
    for (const auto& [name, type] : kernels) {
        const std::string stage = "Stage_" + name, launch = "gg::cuda::launch_of<" + stage + ">()";
        out.unit.source += "using " + stage + " = " + type + ";\n" +
                           "extern \"C\" __global__ void __launch_bounds__(" + launch +
                           ".threads, gg::cuda::residency_of<" + stage + ">())\n    " + name +
                           "(const __grid_constant__ " + stage + "::Args args) {\n    gg::cuda::run_stage<" +
                           stage + ">(" + std::to_string(out.kernels.size()) + ", args);\n}\n";
        table += (table.empty() ? "" : ", ") + launch;
        out.kernels.push_back(name);
    }
    out.unit.source += "extern \"C\" {\n__device__ gg::cuda::Launch gg_launches[] = {" + table + "};\n}\n";
}

}  // namespace detail

/// All kernels of a model, in units that can be compiled side by side.
template <class Family>
std::vector<KernelUnit> kernel_units(const Dims& dims, const ModelFormats& formats, const Target& target) {
    using Layer = typename Family::Layer;
    std::map<std::string, std::map<std::string, std::string>> units;  // unit -> kernel -> type
    std::vector<std::string> slots[decode_variants];
    const auto add = [&](const KernelSpec& spec) {
        if (!spec.name.empty()) units[spec.unit][spec.name] = spec.type;
    };
    for (const std::vector<BranchFormats>& layer : formats.layers) {
        std::size_t i = 0;
        for_each_branch<Layer>([&](auto r, auto b) {
            const BranchSpecs specs =
                branch_specs<Layer, decltype(r)::value, decltype(b)::value>(layer[i++], target.architecture);
            for (int v = 0; v < decode_variants; ++v) {
                for (const KernelSpec* spec :
                     {&specs.decode[v].first, &specs.decode[v].mix, &specs.decode[v].second})
                    add(*spec);
                for (const std::string& text : specs.slots[v])
                    if (std::find(slots[v].begin(), slots[v].end(), text) == slots[v].end())
                        slots[v].push_back(text);
            }
            for (const KernelSpec* spec :
                 {&specs.norm, &specs.append, &specs.attention, &specs.router, &specs.sort, &specs.combine})
                add(*spec);
            for (int v = 0; v < product_variants; ++v) {
                add(specs.first[v]);
                add(specs.second[v]);
            }
        });
    }
    const EndSpecs ends = end_specs(formats, target.architecture);
    for (const KernelSpec& spec : ends.head) add(spec);
    for (const KernelSpec& spec : ends.product) add(spec);
    add(ends.embed);
    add(ends.norm);

    std::string head = "#include \"gg/cuda/kernels.cuh\"\n#include \"" +
                       std::string(Family::composition_header) + "\"\n\n" +
                       detail::dims_text(dims, chip_of(target)) + detail::composition_text<Family>();
    for (int v = 0; v < decode_variants; ++v) {
        head += "[[maybe_unused]] constexpr int max_slots_" + std::to_string(decode_rows[v]) +
                " = gg::cuda::largest(1";
        for (const std::string& text : slots[v]) head += ",\n    " + text;
        head += ");\n";
    }
    std::vector<KernelUnit> list;
    for (const auto& [unit, kernels] : units) {
        KernelUnit out{{std::string(Family::architecture) + "_" + unit, head + "\n", {}}, {}};
        detail::write_kernels(kernels, out);
        list.push_back(std::move(out));
    }
    return list;
}

}  // namespace gg::cuda
