// In which format a GPU holds each matrix of a file, known before anything is loaded.
//
//   file                          tiles   exact?
//   MXFP4, Q8_0, F16, BF16        same    yes
//   Q4_0, Q5_0, IQ4_NL            Q8_0    yes: value = d q with FP16 d and |q| <= 127, as Q8_0 has it
//   Q4_1, Q5_1, Q4_K, Q5_K, Q6_K  F16     to nearest: within 2^-11 of the value, or 2^-25 near zero
//   F32                           F16     likewise
//
// Matrices that one kernel multiplies together (q, k and v; gate and up) have one format: F16 if the table
// gives them several. Routers and vectors become F32. Embeddings stay as they are in the file; as a tied
// head the embedding is held once more, as tiles.
#pragma once

#include <initializer_list>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "gg/cuda/tile_geometry.hpp"
#include "gg/host/binder.hpp"
#include "gg/model/families.hpp"
#include "gg/model/weights.hpp"

namespace gg::cuda {

/// The format of a matrix's tiles.
constexpr DType device_type(DType type) {
    switch (type) {
        case DType::mxfp4:
        case DType::q8_0:
        case DType::f16:
        case DType::bf16:
            return type;
        case DType::q4_0:
        case DType::q5_0:
        case DType::iq4_nl:
            return DType::q8_0;
        default:
            return DType::f16;
    }
}

/// The format of the tiles of matrices that are multiplied together.
constexpr DType shared_device_type(std::span<const DType> types) {
    DType shared = device_type(types[0]);
    for (const DType type : types)
        if (device_type(type) != shared) shared = DType::f16;
    return shared;
}
constexpr DType shared_device_type(std::initializer_list<DType> types) {
    return shared_device_type(std::span<const DType>(types.begin(), types.size()));
}

/// Sizes of tiles (tile.cuh) for the host.
struct TileGeometry {
    /// Bytes of one tile of a format that a GPU has.
    static constexpr std::uint64_t tile_bytes(DType type) {
        return type == DType::mxfp4 ? 544 : type == DType::q8_0 ? 1088 : 2048;
    }
    /// Numbers that an activation multiplied with them is given as (operand.cuh).
    static constexpr int planes(DType type) { return type == DType::bf16 ? 2 : 1; }
    static constexpr int padded_rows(int n) { return row_tiles(n) * tile_rows; }
    /// Rows of two interleaved matrices of n rows.
    static constexpr int interleaved_rows(int n) {
        return (n + tile_rows / 2 - 1) / (tile_rows / 2) * tile_rows;
    }
    /// Bytes of the units of a matrix's rows, which lie behind the tiles of all its group
    /// (warpgroup_tile.cuh).
    static constexpr std::uint64_t unit_bytes(DType type, int row_count) {
        const bool scaled = type == DType::mxfp4 || type == DType::q8_0;
        return scaled ? static_cast<std::uint64_t>(padded_rows(row_count)) : 0;
    }
    static constexpr std::uint64_t bytes(DType type, int row_count, int column_count) {
        return static_cast<std::uint64_t>(row_tiles(row_count)) *
               static_cast<std::uint64_t>(column_tiles(column_count)) * tile_bytes(type);
    }
    /// Tiles and units.
    static constexpr std::uint64_t whole_bytes(DType type, int row_count, int column_count) {
        return bytes(type, row_count, column_count) + unit_bytes(type, row_count);
    }
};

/// What a GPU does with matrices.
enum class MatrixUse {
    tiles,        ///< multiplied: the group's tiles one under the other
    interleaved,  ///< multiplied: eight rows of the first and eight of the second in turn
    floats,       ///< kept as F32
    rows          ///< read row by row, in the file's format
};

namespace detail {

inline host::Matrices one(const host::Matrix& matrix) {
    return {matrix, 1};
}

/// Tells `f(use, group)` the matrices of a block that multiplies.
template <class Block>
struct MatrixGroups;

template <class F>
void visit_groups(const WeightsList<host::HostStore>&, F&) {}
template <class F, class First, class... Rest>
void visit_groups(const WeightsList<host::HostStore, First, Rest...>& list, F& f) {
    MatrixGroups<First>::visit(list.first, f);
    visit_groups(list.rest, f);
}

template <class... Residuals>
struct MatrixGroups<Sequence<Residuals...>> {
    template <class Weights, class F>
    static void visit(const Weights& w, F& f) {
        visit_groups(w.list, f);
    }
};

template <class Norm, class... Branches>
struct MatrixGroups<Residual<Norm, Branches...>> {
    template <class Weights, class F>
    static void visit(const Weights& w, F& f) {
        visit_groups(w.branches, f);
    }
};

template <class... Policies>
struct MatrixGroups<Attention<Policies...>> {
    template <class Weights, class F>
    static void visit(const Weights& w, F& f) {
        f(MatrixUse::tiles, {one(w.q), one(w.k), one(w.v)});
        f(MatrixUse::tiles, {one(w.output)});
    }
};

template <class Activation, class BiasPolicy>
struct MatrixGroups<Mlp<Activation, BiasPolicy>> {
    template <class Weights, class F>
    static void visit(const Weights& w, F& f) {
        if constexpr (Activation::gated)
            f(MatrixUse::interleaved, {one(w.gate), one(w.up)});
        else
            f(MatrixUse::tiles, {one(w.up)});
        f(MatrixUse::tiles, {one(w.down)});
    }
};

template <class Activation, class BiasPolicy>
struct MatrixGroups<MixtureOfExperts<Activation, BiasPolicy>> {
    template <class Weights, class F>
    static void visit(const Weights& w, F& f) {
        f(MatrixUse::floats, {one(w.router)});
        f(MatrixUse::interleaved, {w.gate, w.up});
        f(MatrixUse::tiles, {w.down});
    }
};

}  // namespace detail

/// Calls f(MatrixUse, std::initializer_list<host::Matrices>) for every group of matrices of a model.
template <class Family, class F>
void visit_matrix_groups(const ModelWeights<Family, host::HostStore>& weights, F&& f) {
    f(MatrixUse::rows, {detail::one(weights.embedding.token)});
    if constexpr (Family::Embedding::has_positions)
        f(MatrixUse::rows, {detail::one(weights.embedding.position)});
    for (const auto& layer : weights.layers) detail::MatrixGroups<typename Family::Layer>::visit(layer, f);
    f(MatrixUse::tiles, {detail::one(weights.head)});
}

/// The format that a GPU holds a group of matrices in.
inline DType group_type(MatrixUse use, std::span<const host::Matrices> group) {
    if (use == MatrixUse::floats) return DType::f32;
    if (use == MatrixUse::rows) return group[0].first.type;
    std::vector<DType> types;
    for (const host::Matrices& matrices : group) types.push_back(matrices.first.type);
    return shared_device_type(types);
}

/// Bytes that a group takes on a GPU.
inline std::uint64_t device_bytes(MatrixUse use, std::span<const host::Matrices> group) {
    const DType type = group_type(use, group);
    std::uint64_t bytes = 0;
    for (const host::Matrices& part : group) {
        const auto [matrix, count] = part;
        const auto rows = static_cast<std::uint64_t>(matrix.rows);
        if (use == MatrixUse::rows)
            bytes += rows * matrix.row_bytes;
        else if (use == MatrixUse::floats)
            bytes += rows * static_cast<std::uint64_t>(matrix.columns) * sizeof(float);
        else if (use == MatrixUse::tiles)
            bytes += static_cast<std::uint64_t>(count) *
                     TileGeometry::whole_bytes(type, matrix.rows, matrix.columns);
    }
    if (use == MatrixUse::interleaved)
        bytes = static_cast<std::uint64_t>(group[0].count) *
                TileGeometry::whole_bytes(type, TileGeometry::interleaved_rows(group[0].first.rows),
                                          group[0].first.columns);
    return bytes;
}

/// The tensor of a file that an address lies in; nullptr if it is in none.
inline const TensorView* tensor_at(const gguf::File& file, const std::byte* address) {
    for (const TensorView& tensor : file.tensors())
        if (address >= tensor.data && address < tensor.data + tensor.bytes()) return &tensor;
    return nullptr;
}

/// Tensors of one type that a GPU holds in one format.
struct Conversion {
    DType found;              ///< in the file
    DType used;               ///< on the GPU
    int tensors = 0;          ///< a tied head is a second one
    std::uint64_t bytes = 0;  ///< in the file
};

/// All tensors of a bound model, by the type in the file and the format on the GPU.
template <class Family>
std::vector<Conversion> conversions(const gguf::File& file,
                                    const ModelWeights<Family, host::HostStore>& weights) {
    std::map<std::pair<DType, DType>, Conversion> all;
    const auto entry = [&](DType found, DType used) -> Conversion& {
        return all.try_emplace({found, used}, Conversion{found, used}).first->second;
    };
    std::set<std::pair<const TensorView*, MatrixUse>> seen;  // q, k and v may be parts of one tensor
    std::set<const TensorView*> matrices;
    visit_matrix_groups<Family>(weights, [&](MatrixUse use, std::initializer_list<host::Matrices> group) {
        const DType used = group_type(use, {group.begin(), group.size()});
        for (const host::Matrices& part : group) {
            const TensorView* tensor = tensor_at(file, part.first.data);
            Conversion& conversion = entry(part.first.type, used);
            conversion.tensors += static_cast<int>(seen.emplace(tensor, use).second);
            conversion.bytes += static_cast<std::uint64_t>(part.count) *
                                static_cast<std::uint64_t>(part.first.rows) * part.first.row_bytes;
            matrices.insert(tensor);
        }
    });
    for (const TensorView& tensor : file.tensors()) {
        if (matrices.count(&tensor)) continue;
        Conversion& conversion = entry(tensor.type, DType::f32);
        ++conversion.tensors;
        conversion.bytes += tensor.bytes();
    }
    std::vector<Conversion> list;
    for (const auto& [types, conversion] : all) list.push_back(conversion);
    return list;
}

/// The same for a file of any family that gg has. Refuses files whose tensors do not fit.
inline std::vector<Conversion> conversions(const gguf::File& file) {
    return host::with_bound_weights(file, [&](auto family, const Dims&, const auto& weights) {
        return conversions<decltype(family)>(file, weights);
    });
}

}  // namespace gg::cuda
