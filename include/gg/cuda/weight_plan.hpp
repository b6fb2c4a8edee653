// What a model's weights take on a GPU and where its vectors lie there, from the bound file alone: no device
// and no CUDA runtime is needed. CudaWeights (weights.hpp) allocates and fills exactly this.
//
// In one allocation: all vectors as float32, then every group of matrices. Pieces begin at multiples of 256
// bytes. A router's matrix is held twice among the vectors: [experts][hidden] for many rows, and
// [hidden][experts] with the norm's gain folded in for decoding, where the stage before the norm sums it up
// (router_sums.cuh).
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "gg/cuda/kernel_specs.hpp"
#include "gg/cuda/rows.hpp"
#include "gg/cuda/store.hpp"
#include "gg/cuda/workspace_plan.hpp"

namespace gg::cuda {

/// `count` matrices as tiles, one behind the other.
struct TileMatrix {
    const unsigned char* tiles = nullptr;
    DType type = DType::f16;
    int rows = 0;  ///< of tiles: a multiple of 16, padding included
    int columns = 0;
    std::uint64_t bytes_per_matrix = 0;
    int count = 0;
    /// [count][rows]: units of rows (warpgroup_tile.cuh); null for formats without scales.
    const unsigned char* row_units = nullptr;
};

/// A matrix as it lies in the file, in device memory.
struct RowMatrix {
    const unsigned char* rows = nullptr;
    DType type = DType::f32;
    int count = 0;  ///< of rows
    int columns = 0;
    std::uint64_t row_bytes = 0;
};

/// The matrices of one branch.
struct BranchTiles {
    TileMatrix first;   ///< q, k and v stacked; or up, interleaved with the gate if there is one
    TileMatrix second;  ///< output; or down
    const float* qkv_bias = nullptr;        ///< [width of the stacked product]
    const float* router = nullptr;          ///< [experts][hidden]
    const float* router_columns = nullptr;  ///< [hidden][experts], gain folded in
};

/// The device buffer that pieces of the file pass through while weights are loaded, and its counters of
/// faults (weight_loader.hpp).
inline constexpr std::size_t loading_piece_bytes = std::size_t{32} << 20;
inline constexpr std::size_t loading_counters = 1024;
inline constexpr std::uint64_t loading_bytes = loading_piece_bytes + loading_counters * sizeof(int);

/// Float vectors that go to the device together.
class FloatPool {
  public:
    /// Writes all values of a vector.
    using Fill = std::function<void(float* values)>;

    /// `handle` points to the device's copy after place(); its address must stay. `fill` is called when the
    /// values are asked for.
    void add(const float*& handle, std::size_t count, Fill fill) {
        if (count == 0) return;
        pieces_.push_back({at_, std::move(fill)});
        plan_.plan(handle, count);
        at_ = plan_.bytes() / sizeof(float);
    }
    std::uint64_t bytes() const { return plan_.bytes(); }
    /// All vectors, with zeros between them.
    std::vector<float> values() const {
        std::vector<float> all(at_);
        for (const auto& [offset, fill] : pieces_) fill(all.data() + offset);
        return all;
    }
    /// `base` is where the values are on the device.
    void place(unsigned char* base) const { plan_.place(base); }

  private:
    WorkspacePlan plan_;
    std::size_t at_ = 0;
    std::vector<std::pair<std::size_t, Fill>> pieces_;
};

namespace detail {

/// Collects a model's vectors in the order in which they are named.
template <class Vector>
struct VectorCollector {
    std::vector<Vector*> list;

    void begin_layer(int) {}
    void end_layers() {}
    bool has(const char*, const char*) const { return true; }
    void vector(const char*, const char*, Vector& v, int) { list.push_back(&v); }
    void vector_part(const char*, const char*, Vector& v, int, int, int) { list.push_back(&v); }
    void vectors(const char*, const char*, Vector& v, int, int) { list.push_back(&v); }
    template <class... Arguments>
    void matrix(const Arguments&...) {}
    template <class... Arguments>
    void matrix_rows(const Arguments&...) {}
    template <class... Arguments>
    void matrices(const Arguments&...) {}
};

/// The rows of a matrix as floats, one after the other.
inline std::vector<float> matrix_floats(const host::Matrix& matrix) {
    const auto columns = static_cast<std::size_t>(matrix.columns);
    std::vector<float> values(static_cast<std::size_t>(matrix.rows) * columns);
    for (std::size_t row = 0; row < static_cast<std::size_t>(matrix.rows); ++row)
        format::decode_row(matrix.type, matrix.data + row * matrix.row_bytes, columns,
                           values.data() + row * columns);
    return values;
}

/// What a branch keeps as floats beside its own vectors.
template <class Norm, class... Policies, class Weights>
void pool_branch(const Attention<Policies...>&, const Norm&, const Weights& w, const Dims& dims,
                 BranchTiles& out, FloatPool& pool) {
    if constexpr (Attention<Policies...>::has_bias) {
        const QkvColumns columns = qkv_columns(dims.heads, dims.kv_heads, dims.head_dim);
        pool.add(out.qkv_bias, static_cast<std::size_t>(columns.width), [&w, columns](float* bias) {
            std::copy_n(w.q_bias.data, w.q_bias.size, bias);
            std::copy_n(w.k_bias.data, w.k_bias.size, bias + columns.k);
            std::copy_n(w.v_bias.data, w.v_bias.size, bias + columns.v);
        });
    }
}
template <class Norm, class Activation, class BiasPolicy, class Weights>
void pool_branch(const Mlp<Activation, BiasPolicy>&, const Norm&, const Weights&, const Dims&, BranchTiles&,
                 FloatPool&) {}
template <class Norm, class Activation, class BiasPolicy, class Weights>
void pool_branch(const MixtureOfExperts<Activation, BiasPolicy>&, const Norm& norm, const Weights& w,
                 const Dims& dims, BranchTiles& out, FloatPool& pool) {
    const auto experts = static_cast<std::size_t>(dims.experts),
               hidden = static_cast<std::size_t>(dims.hidden);
    pool.add(out.router, experts * hidden, [&w](float* values) {
        const std::vector<float> rows = matrix_floats(w.router);
        std::copy(rows.begin(), rows.end(), values);
    });
    pool.add(out.router_columns, experts * hidden, [&w, &norm, experts, hidden](float* values) {
        const std::vector<float> rows = matrix_floats(w.router);
        for (std::size_t e = 0; e < experts; ++e)
            for (std::size_t i = 0; i < hidden; ++i)
                values[i * experts + e] = rows[e * hidden + i] * norm.gain[static_cast<int>(i)];
    });
}

/// Everything that is small enough to go through host memory at once: its handles lie in `vectors` and in
/// `layers`, which become as large as the model. `host` outlives the pool.
template <class Family>
void pool_vectors(const ModelWeights<Family, host::HostStore>& host, const Dims& dims,
                  ModelWeights<Family, CudaStore>& vectors, std::vector<std::vector<BranchTiles>>& layers,
                  FloatPool& pool) {
    using Layer = typename Family::Layer;
    auto& named = const_cast<ModelWeights<Family, host::HostStore>&>(host);  // the walk changes nothing
    VectorCollector<host::Vector> from;
    VectorCollector<Vector> to;
    visit_weights<Family>(from, named, dims);
    visit_weights<Family>(to, vectors, dims);
    for (std::size_t i = 0; i < from.list.size(); ++i)
        pool.add(to.list[i]->data, from.list[i]->size,
                 [vector = *from.list[i]](float* values) { std::copy_n(vector.data, vector.size, values); });
    layers.resize(host.layers.size(), std::vector<BranchTiles>(std::size_t(branch_count<Layer>())));
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        std::size_t i = 0;
        for_each_branch<Layer>([&](auto r, auto b) {
            const auto& residual = nth_weights<decltype(r)::value>(host.layers[layer].list);
            pool_branch(BranchOf<Layer, decltype(r)::value, decltype(b)::value>{}, residual.norm,
                        nth_weights<decltype(b)::value>(residual.branches), dims, layers[layer][i++], pool);
        });
    }
}

}  // namespace detail

/// Device memory of all weights, exactly.
template <class Family>
std::uint64_t weight_bytes(const ModelWeights<Family, host::HostStore>& host, const Dims& dims) {
    ModelWeights<Family, CudaStore> vectors;
    std::vector<std::vector<BranchTiles>> layers;
    FloatPool pool;
    detail::pool_vectors<Family>(host, dims, vectors, layers, pool);
    std::uint64_t bytes = pool.bytes();
    visit_matrix_groups<Family>(host, [&](MatrixUse use, std::initializer_list<host::Matrices> group) {
        if (use != MatrixUse::floats) bytes += padded_piece(device_bytes(use, {group.begin(), group.size()}));
    });
    return bytes;
}

}  // namespace gg::cuda
