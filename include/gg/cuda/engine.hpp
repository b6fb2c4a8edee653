// A loaded model on one GPU: its weights, its kernels, and the buffers and the graph with which sessions
// compute, one at a time.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gg/cuda/common_units.hpp"
#include "gg/cuda/decode.hpp"
#include "gg/cuda/kernel_cache.hpp"
#include "gg/cuda/load_options.hpp"
#include "gg/cuda/prefill.hpp"
#include "gg/cuda/sampler_args.hpp"

namespace gg::cuda {

namespace detail {

/// A stream of its own.
class Stream {
  public:
    Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(stream_); }
    operator cudaStream_t() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

/// What `enqueue` puts on a stream, ready to be launched again and again.
class Graph {
  public:
    Graph() = default;
    template <class F>
    Graph(cudaStream_t stream, F&& enqueue) {
        cudaGraph_t graph = nullptr;
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a step");
        try {
            enqueue();
        } catch (...) {
            cudaStreamEndCapture(stream, &graph);
            if (graph != nullptr) cudaGraphDestroy(graph);
            throw;
        }
        check(cudaStreamEndCapture(stream, &graph), "capturing a step");
        const cudaError_t result = cudaGraphInstantiate(&graph_, graph, 0);
        cudaGraphDestroy(graph);
        check(result, "making a graph of a step");
    }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    Graph(Graph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
    Graph& operator=(Graph&& other) noexcept {
        std::swap(graph_, other.graph_);
        return *this;
    }
    ~Graph() {
        if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    }
    void launch(cudaStream_t stream) const { check(cudaGraphLaunch(graph_, stream), "launching a step"); }

  private:
    cudaGraphExec_t graph_ = nullptr;
};

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
    return with_family(file, [&](auto family) {
        using Family = decltype(family);
        const Dims dims = Family::read_dims(file);
        host::VectorStorage vectors;
        ModelWeights<Family, host::HostStore> weights;
        host::bind_weights(file, dims, weights, vectors);
        std::vector<CompileUnit> units;
        for (KernelUnit& unit : detail::all_units<Family>(dims, model_formats<Family>(weights), target))
            units.push_back(std::move(unit.unit));
        return units;
    });
}

template <class Family>
class Engine {
  public:
    Engine(const gguf::File& file, const LoadOptions& options, const DeviceInfo& device)
        : device_(device.index), note_(options.note), launches_(options.launches) {
        use_device();
        stream_.emplace();
        info_ = describe_model<Family>(file);
        host::VectorStorage vectors;
        ModelWeights<Family, host::HostStore> bound;
        host::bind_weights(file, info_.dims, bound, vectors);
        require_supported(file);
        const Target target{device.architecture(), device.multiprocessors};
        const ModelFormats formats = model_formats<Family>(bound);
        note_conversions(file, bound);
        compile(detail::all_units<Family>(info_.dims, formats, target), target, options);
        load_weights(file, bound, options);
        counters_ = DeviceBuffer<int>(counters, "counters");
        check(cudaMemsetAsync(counters_.data(), 0, counters_.bytes(), *stream_), "clearing counters");
        load_frequencies();
        early_ = launches_early(target) && launches_ == Launches::early_graph;
        parts_.emplace(ModelParts<Family>{info_.dims, target, formats, *weights_, *kernels_,
                                          layer_places<Family>(info_.dims), frequencies_.data(), magnitude_});
        for (int v = 0; v < decode_variants; ++v)
            steps_[v] = std::make_unique<DecodeStep<Family>>(*parts_, v, overflows(), *stream_);
        sampler_workspace_ = DeviceBuffer<unsigned char>(sampler_workspace_bytes(info_.dims.vocabulary, 1),
                                                         "the workspace of drawing tokens");
        if (launches_ != Launches::plain)
            graph_ = detail::Graph(*stream_, [&] { steps_[0]->enqueue(*stream_, 1, early_); });
        synchronise();
    }
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const ModelInfo& info() const { return info_; }
    cudaStream_t stream() const { return *stream_; }
    int device() const { return device_; }
    /// Makes this model's device the calling thread's.
    void use_device() const { check(cudaSetDevice(device_), "choosing the device"); }
    void synchronise() const { check(cudaStreamSynchronize(*stream_), "computing on the device"); }

    /// A prompt is read in this many rows at a time.
    const PrefillStep<Family>& prefill() const { return *prefill_; }
    /// Makes the workspace for reading prompts of `rows` rows at a time, if it is smaller.
    void reserve_prefill(int rows) {
        if (prefill_ && prefill_->rows() >= rows) return;
        take_over(nullptr);  // a session's logits may lie in the old one
        synchronise();
        const int before = prefill_ ? prefill_->rows() : 0;
        prefill_.reset();
        try {
            prefill_ = std::make_unique<PrefillStep<Family>>(*parts_, rows, overflows(), *stream_);
        } catch (const Error&) {
            // The sessions that there are go on as before.
            if (before > 0)
                prefill_ = std::make_unique<PrefillStep<Family>>(*parts_, before, overflows(), *stream_);
            throw;
        }
    }
    /// What that workspace takes, and what it would take.
    std::uint64_t prefill_bytes() const { return prefill_ ? prefill_->bytes() : 0; }
    std::uint64_t prefill_bytes(int rows) const {
        return PrefillStep<Family>::workspace_bytes(*parts_, rows);
    }
    const DecodeStep<Family>& step(int variant) const { return *steps_[variant]; }

    /// Enqueues a step of the first `rows` rows of the variant's row list.
    void enqueue_step(int variant, int rows) const {
        if (variant == 0 && launches_ != Launches::plain)
            graph_.launch(*stream_);
        else
            steps_[variant]->enqueue(*stream_, rows, early_);
    }

    /// Enqueues the draw of an id from logits [vocabulary]; it comes to drawn().
    void enqueue_draw(const float* logits, SamplerState* state) const {
        const int vocabulary = info_.dims.vocabulary;
        const SamplerArgs args{logits,  vocabulary, vocabulary, 1, state, sampler_workspace_.data(),
                               drawn(), nullptr,    1,          0};
        const auto slices = static_cast<unsigned>(sampler_slices(vocabulary));
        for (int stage = 0; stage < 4; ++stage)
            (*kernels_)[sampler_spec(stage)].enqueue(dim3(stage < 3 ? slices : 1), *stream_, args, early_);
    }
    /// Enqueues tokens, in device memory, for the history of a sampler.
    void enqueue_accept(SamplerState* state, const int* tokens, int count) const {
        const SamplerAcceptArgs args{state, tokens, count};
        (*kernels_)[sampler_spec(4)].enqueue(dim3(1), *stream_, args, false);
    }
    int* drawn() const { return counters_.data() + 1; }

    /// Waits for all that was enqueued and returns the last id that was drawn. Tells the user once if
    /// activations were cut off.
    int read_drawn() {
        int values[counters] = {};
        check(cudaMemcpyAsync(values, counters_.data(), counters_.bytes(), cudaMemcpyDeviceToHost, *stream_),
              "reading the drawn token");
        synchronise();
        if (values[0] > 0 && !std::exchange(noted_, true) && note_)
            note_("activations beyond FP16's 65504 were cut off there: results may be inexact");
        return values[1];
    }

    /// Which session's logits the step buffers hold; it saves them before another one computes.
    struct Owner {
        virtual ~Owner() = default;
        virtual void save_logits() = 0;
    };
    /// (null: the buffers are about to go).
    void take_over(Owner* owner) {
        if (owner_ != nullptr && owner_ != owner) owner_->save_logits();
        owner_ = owner;
    }
    void leave(const Owner* owner) {
        if (owner_ == owner) owner_ = nullptr;
    }

  private:
    static constexpr int counters = 2;  ///< overflows, drawn id

    int* overflows() const { return counters_.data(); }

    void require_supported(const gguf::File& file) const {
        const Dims& d = info_.dims;
        const auto limit = [&](const char* what, int value, int most) {
            if (value <= most) return;
            refuse({.file = file.name(),
                    .field = what,
                    .expected = "at most " + std::to_string(most) + " on a GPU",
                    .found = std::to_string(value),
                    .next_step = "Use --device host."});
        };
        limit("head width", d.head_dim, 256);
        limit("query heads of a key head", d.heads / d.kv_heads, 64);
        limit("experts", d.experts, 256);
        limit("experts of a token", d.experts_used, 8);
    }

    void note_conversions(const gguf::File& file, const ModelWeights<Family, host::HostStore>& bound) const {
        if (!note_) return;
        for (const Conversion& c : conversions<Family>(file, bound))
            if (c.used != c.found && c.used != DType::f32)
                note_(std::to_string(c.tensors) + " tensors of type " + std::string(gg::info(c.found).name) +
                      " are held as " + std::string(gg::info(c.used).name));
    }

    void compile(std::vector<KernelUnit> units, const Target& target, const LoadOptions& options) {
        std::vector<CompileUnit> sources;
        for (KernelUnit& unit : units) {
            unit.unit.options.insert(unit.unit.options.end(), options.compile_options.begin(),
                                     options.compile_options.end());
            sources.push_back(unit.unit);
        }
        KernelCacheOptions cache_options;
        cache_options.note = options.note;
        KernelCache cache(options.headers, cache_options);
        const std::vector<CompiledUnit> compiled = cache.load(
            sources, target.architecture, [&](std::size_t done, std::size_t total, const std::string&) {
                if (options.progress) options.progress("compiling kernels", done, total);
            });
        kernels_.emplace(units, compiled);
    }

    void load_weights(const gguf::File& file, const ModelWeights<Family, host::HostStore>& bound,
                      const LoadOptions& options) {
        host::ThreadPool pool(options.threads);
        WeightLoader::Options loading;
        loading.pool = &pool;
        const std::uint64_t total = info_.weight_bytes;
        loading.progress = [&](std::uint64_t done) {
            if (options.progress) options.progress("loading", std::min(done, total), total);
        };
        const auto repack = [this](DType target, const RepackArgs& args, cudaStream_t stream) {
            (*kernels_)[repack_spec(target)].enqueue(dim3(repack_blocks(args)), stream, args, false);
        };
        weights_ = std::make_unique<CudaWeights<Family>>(file, bound, info_.dims, *stream_, repack, loading);
    }

    void load_frequencies() {
        std::vector<double> values;
        for_each_branch<typename Family::Layer>([&](auto r, auto b) {
            using Branch = BranchOf<typename Family::Layer, decltype(r)::value, decltype(b)::value>;
            if constexpr (is_attention<Branch>)
                Branch::with_rotary([&](auto policy) {
                    magnitude_ = policy.magnitude(info_.dims);
                    for (int i = 0; i < info_.dims.head_dim / 2; ++i)
                        values.push_back(policy.inverse_frequency(info_.dims, i));
                });
        });
        if (values.empty()) return;
        frequencies_ = DeviceBuffer<double>(values.size(), "rotary frequencies");
        check(cudaMemcpyAsync(frequencies_.data(), values.data(), frequencies_.bytes(),
                              cudaMemcpyHostToDevice, *stream_),
              "copying rotary frequencies");
        synchronise();
    }

    int device_;
    std::function<void(const std::string&)> note_;
    Launches launches_;
    bool early_ = false, noted_ = false;
    ModelInfo info_;
    std::optional<detail::Stream> stream_;
    std::optional<ModelKernels> kernels_;
    std::unique_ptr<CudaWeights<Family>> weights_;
    DeviceBuffer<int> counters_;
    DeviceBuffer<double> frequencies_;
    double magnitude_ = 1.0;
    std::optional<ModelParts<Family>> parts_;
    std::unique_ptr<DecodeStep<Family>> steps_[decode_variants];
    std::unique_ptr<PrefillStep<Family>> prefill_;
    DeviceBuffer<unsigned char> sampler_workspace_;
    detail::Graph graph_;
    Owner* owner_ = nullptr;
};

}  // namespace gg::cuda
