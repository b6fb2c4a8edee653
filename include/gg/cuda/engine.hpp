// A loaded model on one GPU: its weights, its kernels, and the buffers and graphs with which sessions
// compute, one call at a time.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gg/cuda/common_units.hpp"
#include "gg/cuda/decode.hpp"
#include "gg/cuda/kernel_cache.hpp"
#include "gg/cuda/load_options.hpp"
#include "gg/cuda/memory_plan.hpp"
#include "gg/cuda/model_units.hpp"
#include "gg/cuda/prefill.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/cuda/stream.hpp"
#include "gg/cuda/synthetic_source.hpp"

namespace gg::cuda {

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
        planner_ = MemoryPlanner::of<Family>(bound, info_.dims, formats, target);
        budget_.emplace(device.text(), device.total_bytes, options.memory_limit);
        require_model(*budget_, *planner_, file.name());
        longest_step_ = planner_->longest_step(budget_->total(), options.longest_step);
        note_conversions(file, bound);
        compile(detail::all_units<Family>(info_.dims, formats, target), target, options);
        keep(planner_->plan(1).weights, "the model's weights");
        {
            const Reservation buffers = budget_->reserve(loading_bytes, "the buffers for loading weights");
            load_weights(file, bound, options);
        }
        overflows_ = DeviceBuffer<int>(1, "counters");
        check(cudaMemsetAsync(overflows_.data(), 0, overflows_.bytes(), *stream_), "clearing counters");
        load_frequencies();
        early_ = launches_early(target) && launches_ == Launches::early_graph;
        parts_.emplace(ModelParts<Family>{info_.dims, target, formats, *weights_, *kernels_,
                                          layer_places<Family>(info_.dims), frequencies_.data(), magnitude_});
        keep(planner_->plan(1).decoding, "the workspace of decoding");
        for (int v = 0; v < decode_variants; ++v)
            steps_[v] = std::make_unique<DecodeStep<Family>>(*parts_, v, overflows_.data(), *stream_);
        keep(drawing_bytes(info_.dims), "the workspace of drawing tokens");
        sampler_workspace_ =
            DeviceBuffer<unsigned char>(drawing_bytes(info_.dims), "the workspace of drawing tokens");
        if (options.stage_log != nullptr) options.stage_log->attach(*kernels_, steps_[0]->chain());
        drawn_row_ = DeviceBuffer<Row>(1, "a row to draw for");
        synchronise();
    }
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const ModelInfo& info() const { return info_; }
    /// What the model and its sessions may use of the device, and what they have reserved.
    DeviceBudget& budget() { return *budget_; }
    cudaStream_t stream() const { return *stream_; }
    int device() const { return device_; }
    /// Makes this model's device the calling thread's.
    void use_device() const { check(cudaSetDevice(device_), "choosing the device"); }
    void synchronise() const { check(cudaStreamSynchronize(*stream_), "computing on the device"); }

    /// Reads prompts; there is none before reserve_prefill().
    const PrefillStep<Family>& prefill() const { return *prefill_; }
    /// Tokens of a prompt that are computed together.
    int step_rows() const { return prefill_ ? prefill_->rows() : longest_step_; }
    /// Makes the workspace for reading prompts fit one more session of `context` tokens: larger if its
    /// prompts are longer than all before, smaller if the session does not fit beside it.
    void reserve_prefill(int context) {
        const int before = prefill_ ? prefill_->rows() : 0, rows = choose_rows(context);
        if (before == rows) return;
        synchronise();
        try {
            make_prefill(rows);
        } catch (const Error&) {
            if (before > 0) make_prefill(before);  // the sessions that there are go on as before
            throw;
        }
    }
    /// What a session of `context` tokens has for itself: its cache and its state.
    std::uint64_t own_bytes(int context) const {
        return cache_bytes(info_.dims, context, cuda_cache_shape) + session_state_bytes(info_.dims, context);
    }
    /// What one more session of `context` tokens takes: what it has for itself, and what the workspace for
    /// reading prompts grows by.
    std::uint64_t session_bytes(int context) const {
        const std::uint64_t need = own_bytes(context) + planner_->reading_bytes(choose_rows(context));
        return need > held() ? need - held() : 0;
    }
    /// What further sessions may take: of the budget, and of what other programs leave of the device.
    std::uint64_t available() const {
        use_device();
        const std::uint64_t free = free_device_memory();
        constexpr std::uint64_t reserve = std::uint64_t{128} << 20;  // what the driver may still take
        return std::min(budget_->available(), free > reserve ? free - reserve : 0);
    }
    const DecodeStep<Family>& step(int variant) const { return *steps_[variant]; }
    const std::vector<LayerPlace>& places() const { return parts_->places; }

    /// Copies to the device what the caller may overwrite as soon as this returns.
    void upload(void* to, const void* from, std::size_t bytes) const {
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, *stream_), "copying to the device");
    }

    /// Rows of the next steps of a variant. Returns a number that no other upload to any variant has.
    std::uint64_t upload_rows(int variant, std::span<const Row> rows) {
        upload(steps_[variant]->row_list(), rows.data(), rows.size_bytes());
        return rows_written_[variant] = ++row_uploads_;
    }
    /// The number of the variant's last upload.
    std::uint64_t rows_written(int variant) const { return rows_written_[variant]; }

    /// Enqueues a step of the first `rows` rows of the variant's list; `draw`: and then the draw of their
    /// next tokens, to which the list moves on.
    void enqueue_step(int variant, int rows, bool draw) {
        const auto enqueue = [&] {
            steps_[variant]->enqueue(*stream_, rows, early_);
            if (draw) enqueue_draw(steps_[variant]->row_list(), rows, true);
        };
        // A few tokens of a prompt come once; a graph of them would not pay.
        if (launches_ == Launches::plain || (variant > 0 && !draw)) return enqueue();
        Graph& graph = graphs_[{rows, draw}];
        if (!graph) graph = Graph(*stream_, enqueue);
        graph.launch(*stream_);
    }

    /// Enqueues a draw for each of the first rows of a list. `append`: the rows move on to what was drawn.
    void enqueue_draw(Row* list, int rows, bool append) const {
        const int vocabulary = info_.dims.vocabulary;
        const SamplerArgs args{list, rows, vocabulary, sampler_workspace_.data(), overflows_.data(), append};
        const dim3 slices(static_cast<unsigned>(sampler_slices(vocabulary)), static_cast<unsigned>(rows));
        for (int stage = 0; stage < 3; ++stage)
            (*kernels_)[sampler_spec(stage)].enqueue(slices, *stream_, args, early_);
    }
    /// Enqueues a draw for one row that is in no list of steps.
    void enqueue_draw(const Row& row) const {
        upload(drawn_row_.data(), &row, sizeof row);
        enqueue_draw(drawn_row_.data(), 1, false);
    }
    /// Enqueues tokens, in device memory, for the history of a sampler.
    void enqueue_accept(SamplerState* state, const int* tokens, int count) const {
        const SamplerAcceptArgs args{state, tokens, count};
        (*kernels_)[sampler_spec(3)].enqueue(dim3(1), *stream_, args, false);
    }

    /// Remembers the end of what is enqueued so far, after the mark before it.
    void mark() {
        std::swap(marks_[0], marks_[1]);
        marks_[1].record(*stream_);
    }
    /// Waits for the last mark but one.
    void wait_for_earlier_mark() { marks_[0].wait(); }
    /// Before a piece of a prompt: waits for the last but one, so that the host can stop when it is told to.
    void pace() {
        piece_.wait();
        piece_.record(*stream_);
    }

    /// Tells the user once if activations were cut off; `count` of them were.
    void note_overflows(int count) {
        if (count > 0 && !std::exchange(noted_, true) && note_)
            note_("activations beyond FP16's 65504 were cut off there: results may be inexact");
    }
    /// The same, after waiting for all that was enqueued.
    void note_overflows() {
        int count = 0;
        check(cudaMemcpyAsync(&count, overflows_.data(), sizeof count, cudaMemcpyDeviceToHost, *stream_),
              "reading a counter");
        synchronise();
        note_overflows(count);
    }

  private:
    /// Reserves for as long as the model lives.
    void keep(std::uint64_t bytes, const std::string& purpose) {
        kept_.push_back(budget_->reserve(bytes, purpose));
    }

    /// Of the workspace for reading prompts.
    std::uint64_t held() const { return prefill_ ? prefill_->bytes() : 0; }
    /// The rows of that workspace with one more session of `context` tokens.
    int choose_rows(int context) const {
        const std::uint64_t own = own_bytes(context), most = available() + held();
        return choose_step(std::max(context, prefill_ ? prefill_->rows() : 0), longest_step_,
                           [&](int rows) { return own + planner_->reading_bytes(rows) <= most; });
    }

    /// The workspace for reading prompts, in place of another.
    void make_prefill(int rows) {
        prefill_.reset();
        prefill_memory_ = Reservation();
        Reservation memory =
            budget_->reserve(planner_->reading_bytes(rows), "the workspace of reading a prompt");
        prefill_ = std::make_unique<PrefillStep<Family>>(*parts_, rows, overflows_.data(), *stream_);
        prefill_memory_ = std::move(memory);
    }

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
        if (options.synthetic != nullptr) units.push_back(synthesize_unit());
        std::vector<CompileUnit> sources;
        for (KernelUnit& unit : units) {
            unit.unit.options.insert(unit.unit.options.end(), options.compile_options.begin(),
                                     options.compile_options.end());
            if (options.stage_log != nullptr) unit.unit.options.push_back("-DGG_STAMPS");
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
        WeightLoader::Options loading;
        const std::uint64_t total = info_.weight_bytes;
        loading.progress = [&](std::uint64_t done) {
            if (options.progress) options.progress("loading", std::min(done, total), total);
        };
        const auto repack = [this](DType target, const RepackArgs& args, cudaStream_t stream) {
            (*kernels_)[repack_spec(target)].enqueue(dim3(repack_blocks(args)), stream, args, false);
        };
        const auto load = [&](ByteSource& source) {
            weights_ = std::make_unique<CudaWeights<Family>>(file, bound, info_.dims, source, *stream_,
                                                             repack, loading);
        };
        if (options.synthetic != nullptr) {
            SyntheticSource source(*options.synthetic, [this](const SynthesizeArgs& args,
                                                              cudaStream_t stream) {
                (*kernels_)[synthesize_spec()].enqueue(dim3(synthesize_blocks(args)), stream, args, false);
            });
            return load(source);
        }
        host::ThreadPool pool(options.threads);
        FileSource source(file, {.buffer_bytes = options.upload_bytes, .pool = &pool});
        load(source);
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
    std::optional<Stream> stream_;
    std::optional<DeviceBudget> budget_;
    std::optional<MemoryPlanner> planner_;
    int longest_step_ = 0;
    std::vector<Reservation> kept_;
    Reservation prefill_memory_;
    std::optional<ModelKernels> kernels_;
    std::unique_ptr<CudaWeights<Family>> weights_;
    DeviceBuffer<int> overflows_;
    DeviceBuffer<double> frequencies_;
    double magnitude_ = 1.0;
    std::optional<ModelParts<Family>> parts_;
    std::unique_ptr<DecodeStep<Family>> steps_[decode_variants];
    std::unique_ptr<PrefillStep<Family>> prefill_;
    DeviceBuffer<unsigned char> sampler_workspace_;
    DeviceBuffer<Row> drawn_row_;
    std::map<std::pair<int, bool>, Graph> graphs_;  ///< by rows, and whether they end in a draw
    std::uint64_t rows_written_[decode_variants] = {}, row_uploads_ = 0;
    Event marks_[2], piece_;
};

}  // namespace gg::cuda
