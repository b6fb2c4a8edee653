// A model's weights on a GPU: tiles of every product, vectors as float32, the embedding as it is in the file.
//
// A router's matrix is held twice: [experts][hidden] for many rows, and [hidden][experts] with the norm's
// gain folded in for decoding, where the stage before the norm sums it up (router_sums.cuh).
#pragma once

#include <span>
#include <vector>

#include "gg/cuda/kernel_specs.hpp"
#include "gg/cuda/rows.hpp"
#include "gg/cuda/weight_loader.hpp"

namespace gg::cuda {

/// The matrices of one branch.
struct BranchTiles {
    TileMatrix first;   ///< q, k and v stacked; or up, interleaved with the gate if there is one
    TileMatrix second;  ///< output; or down
    const float* qkv_bias = nullptr;        ///< [width of the stacked product]
    const float* router = nullptr;          ///< [experts][hidden]
    const float* router_columns = nullptr;  ///< [hidden][experts], gain folded in
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

/// Float vectors that go to the device together; each begins at a multiple of 256 bytes.
class FloatPool {
  public:
    /// `handle` points to the device's copy after upload(); its address must stay.
    void add(const float*& handle, std::span<const float> values) {
        if (values.empty()) return;
        handles_.emplace_back(&handle, values_.size());
        values_.insert(values_.end(), values.begin(), values.end());
        values_.resize((values_.size() + 63) / 64 * 64);
    }
    std::uint64_t bytes() const { return values_.size() * sizeof(float); }
    void upload(float* to, cudaStream_t stream) {
        if (values_.empty()) return;
        check(cudaMemcpyAsync(to, values_.data(), bytes(), cudaMemcpyHostToDevice, stream),
              "copying vectors");
        check(cudaStreamSynchronize(stream), "copying vectors");
        for (const auto& [handle, offset] : handles_) *handle = to + offset;
    }

  private:
    std::vector<float> values_;
    std::vector<std::pair<const float**, std::size_t>> handles_;
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

}  // namespace detail

template <class Family>
class CudaWeights {
  public:
    using Layer = typename Family::Layer;
    using HostWeights = ModelWeights<Family, host::HostStore>;
    using Launch = WeightLoader::Launch;

    /// Brings the bound weights to the current device. Throws out_of_memory, or model_load_failed for a
    /// weight that no device format holds.
    CudaWeights(const gguf::File& file, const HostWeights& host, const Dims& dims, cudaStream_t stream,
                const Launch& repack, const WeightLoader::Options& options)
        : dims_(dims) {
        collect_vectors(host);
        arena_ = DeviceArena(matrix_bytes(host) + DeviceArena::padded(pool_.bytes()), "the model's weights");
        pool_.upload(reinterpret_cast<float*>(arena_.take(pool_.bytes())), stream);
        pool_ = {};
        WeightLoader loader(
            file, stream, [this](std::uint64_t bytes) { return arena_.take(bytes); }, repack, options);
        embedding = loader.load_rows(host.embedding.token);
        if constexpr (Family::Embedding::has_positions) positions = loader.load_rows(host.embedding.position);
        for (std::size_t i = 0; i < layers.size(); ++i) load_layer(loader, host.layers[i], layers[i]);
        head = loader.load(host.head);
        loader.finish();
    }
    CudaWeights(const CudaWeights&) = delete;
    CudaWeights& operator=(const CudaWeights&) = delete;

    std::uint64_t bytes() const { return arena_.bytes(); }

    ModelWeights<Family, CudaStore> vectors;       ///< the blocks' own vectors
    std::vector<std::vector<BranchTiles>> layers;  ///< [layer][branch]
    TileMatrix head;
    RowMatrix embedding, positions;

  private:
    static std::uint64_t matrix_bytes(const HostWeights& host) {
        std::uint64_t bytes = 0;
        visit_matrix_groups<Family>(host, [&](MatrixUse use, std::initializer_list<host::Matrices> group) {
            if (use != MatrixUse::floats)
                bytes += DeviceArena::padded(device_bytes(use, {group.begin(), group.size()}));
        });
        return bytes;
    }

    /// Everything that is small enough to go through host memory at once.
    void collect_vectors(const HostWeights& host) {
        HostWeights& named = const_cast<HostWeights&>(host);  // the walk names, and changes nothing
        detail::VectorCollector<host::Vector> from;
        detail::VectorCollector<Vector> to;
        visit_weights<Family>(from, named, dims_);
        visit_weights<Family>(to, vectors, dims_);
        for (std::size_t i = 0; i < from.list.size(); ++i)
            pool_.add(to.list[i]->data, {from.list[i]->data, from.list[i]->size});
        for (const auto& layer : host.layers) {
            std::vector<BranchTiles>& branches =
                layers.emplace_back(static_cast<std::size_t>(branch_count<Layer>()));
            std::size_t i = 0;
            for_each_branch<Layer>([&](auto r, auto b) {
                const auto& residual = nth_weights<decltype(r)::value>(layer.list);
                collect(BranchOf<Layer, decltype(r)::value, decltype(b)::value>{}, residual.norm,
                        nth_weights<decltype(b)::value>(residual.branches), branches[i++]);
            });
        }
    }

    template <class Norm, class... Policies, class Weights>
    void collect(const Attention<Policies...>&, const Norm&, const Weights& w, BranchTiles& out) {
        if constexpr (Attention<Policies...>::has_bias) {
            const QkvColumns columns = qkv_columns(dims_.heads, dims_.kv_heads, dims_.head_dim);
            std::vector<float> bias(static_cast<std::size_t>(columns.width));
            std::copy_n(w.q_bias.data, w.q_bias.size, bias.begin());
            std::copy_n(w.k_bias.data, w.k_bias.size, bias.begin() + columns.k);
            std::copy_n(w.v_bias.data, w.v_bias.size, bias.begin() + columns.v);
            pool_.add(out.qkv_bias, bias);
        }
    }
    template <class Norm, class Activation, class BiasPolicy, class Weights>
    void collect(const Mlp<Activation, BiasPolicy>&, const Norm&, const Weights&, BranchTiles&) {}
    template <class Norm, class Activation, class BiasPolicy, class Weights>
    void collect(const MixtureOfExperts<Activation, BiasPolicy>&, const Norm& norm, const Weights& w,
                 BranchTiles& out) {
        const std::vector<float> rows = detail::matrix_floats(w.router);
        pool_.add(out.router, rows);
        const auto experts = static_cast<std::size_t>(dims_.experts),
                   hidden = static_cast<std::size_t>(dims_.hidden);
        std::vector<float> columns(rows.size());
        for (std::size_t e = 0; e < experts; ++e)
            for (std::size_t i = 0; i < hidden; ++i)
                columns[i * experts + e] = rows[e * hidden + i] * norm.gain[static_cast<int>(i)];
        pool_.add(out.router_columns, columns);
    }

    template <class LayerWeights>
    void load_layer(WeightLoader& loader, const LayerWeights& layer, std::vector<BranchTiles>& branches) {
        std::size_t i = 0;
        for_each_branch<Layer>([&](auto r, auto b) {
            load(BranchOf<Layer, decltype(r)::value, decltype(b)::value>{}, loader,
                 nth_weights<decltype(b)::value>(nth_weights<decltype(r)::value>(layer.list).branches),
                 branches[i++]);
        });
    }

    template <class... Policies, class Weights>
    static void load(const Attention<Policies...>&, WeightLoader& loader, const Weights& w,
                     BranchTiles& out) {
        out.first = loader.load_stacked({w.q, w.k, w.v});
        out.second = loader.load(w.output);
    }
    template <class Activation, class BiasPolicy, class Weights>
    static void load(const Mlp<Activation, BiasPolicy>&, WeightLoader& loader, const Weights& w,
                     BranchTiles& out) {
        if constexpr (Activation::gated)
            out.first = loader.load_interleaved(w.gate, w.up);
        else
            out.first = loader.load(w.up);
        out.second = loader.load(w.down);
    }
    template <class Activation, class BiasPolicy, class Weights>
    static void load(const MixtureOfExperts<Activation, BiasPolicy>&, WeightLoader& loader, const Weights& w,
                     BranchTiles& out) {
        out.first = loader.load_interleaved(w.gate, w.up);
        out.second = loader.load(w.down);
    }

    Dims dims_;
    detail::FloatPool pool_;
    DeviceArena arena_;
};

}  // namespace gg::cuda
