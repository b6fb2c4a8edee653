// A model's weights on a GPU: tiles of every product, vectors as float32, the embedding as it is in the file
// (weight_plan.hpp has their sizes and places).
#pragma once

#include <vector>

#include "gg/cuda/weight_loader.hpp"
#include "gg/cuda/weight_plan.hpp"

namespace gg::cuda {

template <class Family>
class CudaWeights {
  public:
    using Layer = typename Family::Layer;
    using HostWeights = ModelWeights<Family, host::HostStore>;
    using Launch = WeightLoader::Launch;

    /// Brings the bound weights to the current device. Throws out_of_memory, or model_load_failed for a
    /// weight that no device format holds.
    CudaWeights(const gguf::File& file, const HostWeights& host, const Dims& dims, ByteSource& source,
                cudaStream_t stream, const Launch& repack, const WeightLoader::Options& options)
        : arena_(weight_bytes<Family>(host, dims), "the model's weights") {
        upload_vectors(host, dims, stream);
        WeightLoader loader(
            file, source, stream, [this](std::uint64_t bytes) { return arena_.take(bytes); }, repack,
            options);
        embedding = loader.load_rows(host.embedding.token);
        if constexpr (Family::Embedding::has_positions) positions = loader.load_rows(host.embedding.position);
        for (std::size_t i = 0; i < layers.size(); ++i) load_layer(loader, host.layers[i], layers[i]);
        head = loader.load(host.head);
        loader.finish();
    }
    CudaWeights(const CudaWeights&) = delete;
    CudaWeights& operator=(const CudaWeights&) = delete;

    std::uint64_t bytes() const { return arena_.bytes(); }
    /// Of those, what tensors take; all of them.
    std::uint64_t used() const { return arena_.used(); }

    ModelWeights<Family, CudaStore> vectors;       ///< the blocks' own vectors
    std::vector<std::vector<BranchTiles>> layers;  ///< [layer][branch]
    TileMatrix head;
    RowMatrix embedding, positions;

  private:
    void upload_vectors(const HostWeights& host, const Dims& dims, cudaStream_t stream) {
        FloatPool pool;
        detail::pool_vectors<Family>(host, dims, vectors, layers, pool);
        unsigned char* const to = arena_.take(pool.bytes());
        const std::vector<float> values = pool.values();
        if (values.empty()) return;
        check(cudaMemcpyAsync(to, values.data(), pool.bytes(), cudaMemcpyHostToDevice, stream),
              "copying vectors");
        check(cudaStreamSynchronize(stream), "copying vectors");
        pool.place(to);
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

    DeviceArena arena_;
};

}  // namespace gg::cuda
