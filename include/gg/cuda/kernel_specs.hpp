// Which kernels a model needs: for each branch of its layer type, in each combination of weight formats that
// its layers have, and for the head and the embedding. Source text (source.hpp) is made from these
// specifications, and the same specifications find the compiled kernels again (model_kernels.hpp).
//
// In a type's text, Dims are the model's dimensions, Composition is the family's, N0, N1 ... are the norms of
// the layer's residuals, B0_0, B0_1, B1_0 ... the branches of each.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "gg/cuda/prefill_plan.hpp"
#include "gg/cuda/weight_format.hpp"
#include "gg/host/binder.hpp"
#include "gg/model/families.hpp"

namespace gg::cuda {

/// Steps of up to this many rows are decoded by the fused stages.
inline constexpr int decode_rows[] = {1, 8};
inline constexpr int decode_variants = 2;

/// Whether an architecture has products of warpgroups, and has them for a weight format.
inline bool has_warpgroup_products(std::string_view architecture) {
    return architecture == "sm_90a";
}
inline bool has_warpgroup_products(std::string_view architecture, DType format) {
    return has_warpgroup_products(architecture) && TileGeometry::planes(format) == 1;
}

/// One kernel: the unit of source text that it is in, its name, and the stage's type.
struct KernelSpec {
    std::string unit, name, type;
};

/// What a branch is.
enum class BranchKind { attention, dense, routed };

template <class Block>
inline constexpr bool is_attention = false;
template <class... Policies>
inline constexpr bool is_attention<Attention<Policies...>> = true;
template <class Block>
inline constexpr bool is_routed = false;
template <class Activation, class BiasPolicy>
inline constexpr bool is_routed<MixtureOfExperts<Activation, BiasPolicy>> = true;

template <class Block>
inline constexpr BranchKind kind_of = is_attention<Block> ? BranchKind::attention
                                      : is_routed<Block>  ? BranchKind::routed
                                                          : BranchKind::dense;

/// Calls f(r, b) with the numbers of every residual and branch of a layer type as std::integral_constant.
template <class Layer, class F>
void for_each_branch(F&& f) {
    const auto branches = [&]<int r, int... b>(std::integral_constant<int, r> residual,
                                               std::integer_sequence<int, b...>) {
        (f(residual, std::integral_constant<int, b>{}), ...);
    };
    [&]<int... r>(std::integer_sequence<int, r...>) {
        (branches(std::integral_constant<int, r>{},
                  std::make_integer_sequence<int, PartOf<Layer, r>::branches>{}),
         ...);
    }
    (std::make_integer_sequence<int, Layer::residuals>{});
}

/// The number of branches of a layer type.
template <class Layer>
int branch_count() {
    int count = 0;
    for_each_branch<Layer>([&](auto, auto) { ++count; });
    return count;
}

template <class Layer, int r, int b>
using BranchOf = PartOf<PartOf<Layer, r>, b>;

/// Whether the residual after residual `r` routes to experts: its last stage leaves the router's sums.
template <class Layer, int r>
constexpr bool next_is_routed() {
    if constexpr (r + 1 < Layer::residuals)
        return is_routed<BranchOf<Layer, r + 1, 0>>;
    else
        return false;
}

/// The formats of a branch's two matrices: q, k and v or up; output or down.
struct BranchFormats {
    DType first, second;
};

/// The operand that a format's products take, as text.
inline std::string operand_text(DType type) {
    return std::string("gg::cuda::") + (type == DType::bf16 ? "BfloatPairOperand" : "HalfOperand");
}
inline std::string format_text(DType type) {
    return "gg::format::" + std::string(info(type).name);
}

/// The kernels of one branch.
struct BranchSpecs {
    struct Step {
        KernelSpec first, mix, second;  ///< mix is empty for a feed-forward block
    };
    Step decode[decode_variants];
    KernelSpec norm;
    KernelSpec first[product_variants], second[product_variants];  ///< empty where there is none
    KernelSpec append, attention;                                  ///< of attention
    KernelSpec router, sort, combine;                              ///< of experts
    std::vector<std::string> slots[decode_variants];  ///< texts of partial sums that its last stage leaves
};

namespace detail {

/// The type of a variant of a product, empty if the architecture has none.
inline std::string product_text(int variant, DType format, const std::string& columns,
                                const std::string& epilogue, std::string_view architecture) {
    if (variant >= product_tilings && !has_warpgroup_products(architecture, format)) return "";
    return "gg::cuda::ProductVariant<" + format_text(format) + ", " + columns + ", " + epilogue + ", " +
           std::to_string(variant) + ">";
}

/// Builds the specifications of branch b of residual r.
class BranchWriter {
  public:
    BranchWriter(int r, int b, BranchFormats formats, std::string_view architecture)
        : norm_("N" + std::to_string(r)),
          block_("B" + std::to_string(r) + "_" + std::to_string(b)),
          label_("r" + std::to_string(r) + "b" + std::to_string(b)),
          formats_(formats),
          architecture_(architecture) {}

    BranchSpecs write(BranchKind kind, bool next_routed) const {
        BranchSpecs specs;
        const std::string experts = next_routed ? "Dims::experts" : "0";
        for (int v = 0; v < decode_variants; ++v) {
            const std::string rows = std::to_string(decode_rows[v]), slots = "max_slots_" + rows;
            const std::string unit = "decode_" + rows, first = format_text(formats_.first),
                              second = format_text(formats_.second), operand = operand_text(formats_.second);
            BranchSpecs::Step& step = specs.decode[v];
            const std::string feed = "gg::cuda::FeedForward<" + block_ + ", Dims>";
            if (kind == BranchKind::attention) {
                step.first =
                    spec(unit, rows + "_qkv", stage("QkvStage", norm_, first, rows, slots), true, false);
                step.mix = spec(
                    unit, rows + "_attention",
                    stage("DecodeAttention", block_, operand, rows, step.first.type + "::plan.slots",
                          "gg::cuda::decode_splits(Dims::multiprocessors, Dims::kv_heads, " + rows + ")"),
                    true, true);
                step.second = spec(unit, rows + "_output", stage("OutputStage", second, rows, slots, experts),
                                   false, true);
                specs.slots[v] = {stage("OutputShape", second, rows, experts) + "::plan.slots"};
            } else {
                step.first = spec(unit, rows + "_up",
                                  stage("UpStage", norm_, block_, first, operand, rows, slots), true, true);
                step.second = spec(unit, rows + "_down",
                                   stage("DownStage", block_, second, rows, slots, experts), false, true);
                specs.slots[v] = {stage("DownShape", feed, second, rows, experts) + "::plan.slots"};
            }
        }
        write_prefill(kind, specs);
        return specs;
    }

  private:
    template <class... Texts>
    static std::string stage(const char* name, const Texts&... texts) {
        std::string type = "gg::cuda::" + std::string(name) + "<Dims";
        ((type += ", " + texts), ...);
        return type + ">";
    }

    KernelSpec spec(const std::string& unit, const std::string& role, std::string type, bool by_first,
                    bool by_second) const {
        std::string name = label_ + "_" + role;
        if (by_first) name += "_" + std::string(info(formats_.first).name);
        if (by_second) name += "_" + std::string(info(formats_.second).name);
        return {unit, name, std::move(type)};
    }

    /// A product in every variant that there is.
    void products(KernelSpec (&out)[product_variants], const std::string& role, DType format,
                  const std::string& columns, const std::string& epilogue, bool by_second) const {
        for (int v = 0; v < product_variants; ++v) {
            const std::string type = product_text(v, format, columns, epilogue, architecture_);
            if (!type.empty())
                out[v] =
                    spec("prefill_" + label_ + "_" + role, role + std::to_string(v), type, true, by_second);
        }
    }

    void write_prefill(BranchKind kind, BranchSpecs& specs) const {
        const std::string unit = "prefill", operand = operand_text(formats_.second);
        specs.norm = spec(unit, "norm",
                          "gg::cuda::NormRows<" + norm_ + ", Dims, " + operand_text(formats_.first) + ">",
                          true, false);
        const std::string hidden = "Dims::hidden",
                          warpgroups = has_warpgroup_products(architecture_) ? "true" : "false";
        if (kind == BranchKind::attention) {
            products(specs.first, "qkv", formats_.first, hidden,
                     "gg::cuda::StoreProduct<gg::cuda::qkv_columns(Dims::heads, Dims::kv_heads, "
                     "Dims::head_dim).width>",
                     false);
            specs.append = spec(unit, "append", stage("AppendKeys", block_), false, false);
            specs.attention = spec(unit, "attention",
                                   stage("PrefillAttentionFor", block_, operand, warpgroups), false, true);
            products(specs.second, "output", formats_.second, "Dims::heads * Dims::head_dim",
                     "gg::cuda::AddProduct<Dims::hidden>", true);
            return;
        }
        const std::string feed = "gg::cuda::FeedForward<" + block_ + ", Dims>";
        products(specs.first, "up", formats_.first, hidden,
                 "gg::cuda::ActivateProduct<" + feed + "::Activation, " + feed + "::width, " + operand + ">",
                 true);
        const bool routed = kind == BranchKind::routed;
        products(specs.second, "down", formats_.second, feed + "::width",
                 routed ? "gg::cuda::StoreProduct<Dims::hidden>" : "gg::cuda::AddProduct<Dims::hidden>",
                 true);
        if (!routed) return;
        specs.router = spec(unit, "router", "gg::cuda::Router<" + norm_ + ", Dims>", false, false);
        specs.sort = spec(unit, "sort", "gg::cuda::ExpertSort", false, false);
        specs.combine = spec(unit, "combine", stage("CombineExperts"), false, false);
    }

    std::string norm_, block_, label_;
    BranchFormats formats_;
    std::string_view architecture_;
};

}  // namespace detail

/// The kernels of branch b of residual r in given formats.
template <class Layer, int r, int b>
BranchSpecs branch_specs(BranchFormats formats, std::string_view architecture) {
    using Branch = BranchOf<Layer, r, b>;
    constexpr bool last = b + 1 == PartOf<Layer, r>::branches;
    static_assert(PartOf<Layer, r>::branches <= 2, "on a GPU a residual has at most two branches");
    static_assert(!is_routed<Branch> || (r > 0 && b == 0),
                  "on a GPU experts come first in their residual, and not in the layer's first residual");
    return detail::BranchWriter(r, b, formats, architecture)
        .write(kind_of<Branch>, last && next_is_routed<Layer, r>());
}

/// The formats of every branch of every layer, and of the head.
struct ModelFormats {
    std::vector<std::vector<BranchFormats>> layers;
    DType head, embedding;
    bool learned_positions = false;
    DType positions = DType::f32;
};

namespace detail {

template <class... Policies>
BranchFormats formats_of(const Attention<Policies...>&,
                         const typename Attention<Policies...>::template Weights<host::HostStore>& w) {
    return {shared_device_type({w.q.type, w.k.type, w.v.type}), device_type(w.output.type)};
}
template <class Activation, class BiasPolicy>
BranchFormats formats_of(const Mlp<Activation, BiasPolicy>&,
                         const typename Mlp<Activation, BiasPolicy>::template Weights<host::HostStore>& w) {
    if constexpr (Activation::gated)
        return {shared_device_type({w.gate.type, w.up.type}), device_type(w.down.type)};
    else
        return {device_type(w.up.type), device_type(w.down.type)};
}
template <class Activation, class BiasPolicy>
BranchFormats formats_of(
    const MixtureOfExperts<Activation, BiasPolicy>&,
    const typename MixtureOfExperts<Activation, BiasPolicy>::template Weights<host::HostStore>& w) {
    return {shared_device_type({w.gate.first.type, w.up.first.type}), device_type(w.down.first.type)};
}

}  // namespace detail

/// The formats that a bound model has on a GPU.
template <class Family>
ModelFormats model_formats(const ModelWeights<Family, host::HostStore>& weights) {
    using Layer = typename Family::Layer;
    ModelFormats formats{{}, device_type(weights.head.type), weights.embedding.token.type};
    if constexpr (Family::Embedding::has_positions) {
        formats.learned_positions = true;
        formats.positions = weights.embedding.position.type;
    }
    for (const auto& layer : weights.layers) {
        std::vector<BranchFormats>& list = formats.layers.emplace_back();
        for_each_branch<Layer>([&](auto r, auto b) {
            const auto& residual = nth_weights<decltype(r)::value>(layer.list);
            list.push_back(detail::formats_of(BranchOf<Layer, decltype(r)::value, decltype(b)::value>{},
                                              nth_weights<decltype(b)::value>(residual.branches)));
        });
    }
    return formats;
}

/// The kernels around the layers.
struct EndSpecs {
    KernelSpec embed;
    KernelSpec head[decode_variants];
    KernelSpec norm;
    KernelSpec product[product_variants];
};

inline EndSpecs end_specs(const ModelFormats& formats, std::string_view architecture) {
    EndSpecs specs;
    const std::string head = format_text(formats.head), name = std::string(info(formats.head).name);
    const std::string positions =
        formats.learned_positions ? format_text(formats.positions) : "gg::cuda::NoPositions";
    specs.embed = {"prefill", "embed",
                   "gg::cuda::Embed<" + format_text(formats.embedding) + ", " + positions + ", Dims>"};
    for (int v = 0; v < decode_variants; ++v) {
        const std::string rows = std::to_string(decode_rows[v]);
        specs.head[v] = {"decode_" + rows, "head_" + rows + "_" + name,
                         "gg::cuda::HeadStage<Dims, Composition::FinalNorm, " + head + ", " + rows +
                             ", max_slots_" + rows + ">"};
    }
    specs.norm = {"prefill", "head_norm",
                  "gg::cuda::NormRows<Composition::FinalNorm, Dims, " + operand_text(formats.head) + ">"};
    for (int v = 0; v < product_variants; ++v) {
        const std::string type = detail::product_text(
            v, formats.head, "Dims::hidden", "gg::cuda::StoreProduct<Dims::vocabulary>", architecture);
        if (!type.empty()) specs.product[v] = {"prefill_head", "head" + std::to_string(v) + "_" + name, type};
    }
    return specs;
}

}  // namespace gg::cuda
