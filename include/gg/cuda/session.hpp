// A conversation with a model on a GPU. Single tokens go through the graph of a decoding step, up to eight
// tokens through the fused stages, more through the kernels of prefill.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "gg/cuda/engine.hpp"
#include "gg/cuda/sampler_host.hpp"
#include "gg/model/session.hpp"
#include "gg/model/token_history.hpp"

namespace gg::cuda {

template <class Family>
class CudaSession final : public Session, private Engine<Family>::Owner {
  public:
    CudaSession(Engine<Family>& engine, const gguf::File& file, int context)
        : engine_(engine), file_(file), history_(engine.info().dims.vocabulary, context) {
        engine.use_device();
        engine.reserve_prefill(std::min(context, cuda_prefill_chunk));
        const Dims& d = dims();
        cache_ =
            DeviceBuffer<unsigned char>(cache_bytes(d, context, cuda_cache_shape), "the key-value cache");
        saved_ = DeviceBuffer<float>(static_cast<std::size_t>(d.vocabulary), "a session's logits");
        // Attention multiplies whole tiles of keys: what is not there yet must be numbers.
        check(cudaMemsetAsync(cache_.data(), 0, cache_.bytes(), engine.stream()),
              "clearing the key-value cache");
    }
    ~CudaSession() override {
        engine_.leave(this);
        // Buffers are freed after what still uses them.
        cudaSetDevice(engine_.device());
        cudaStreamSynchronize(engine_.stream());
    }

    void prefill(std::span<const std::int32_t> tokens) override {
        begin(tokens);
        while (!tokens.empty()) {
            const auto piece = take_piece(tokens, cuda_prefill_chunk);
            if (piece.size() <= std::size_t(engine_.step(decode_variants - 1).rows()))
                decode(piece);
            else
                read(piece, tokens.empty());
            append(piece);
        }
        history_.set_logits();
    }

    std::span<const float> logits() override {
        history_.require_logits();
        engine_.use_device();
        return copy(logits_, 1);
    }

    void score(std::span<const std::int32_t> tokens, const LogitsRow& each) override {
        begin(tokens);
        int done = 0;
        while (!tokens.empty()) {
            const auto piece = take_piece(tokens, cuda_prefill_chunk);
            enqueue(piece);
            append(piece);
            const int rows = static_cast<int>(piece.size());
            for (int row = 0; row < rows; row += cuda_scored_rows) {
                const int count = std::min(cuda_scored_rows, rows - row);
                float* out = engine_.prefill().logits();
                engine_.prefill().enqueue_head(engine_.stream(), row, count, out);
                const std::span<const float> values = copy(out, count);
                logits_ = out + std::size_t(count - 1) * vocabulary();
                for (int i = 0; i < count; ++i)
                    each(done + row + i, values.subspan(std::size_t(i) * vocabulary(), vocabulary()));
            }
            done += rows;
        }
        engine_.read_drawn();  // for what it tells the user
        history_.set_logits();
    }

    void set_sampling(const text::SamplerOptions& options,
                      const std::function<bool(std::int32_t)>& sampleable) override {
        engine_.use_device();
        text::Sampler(options, dims().vocabulary);  // its checks
        Sampling sampling;
        if (sampleable) {
            const std::vector<unsigned> words = blocked_words(dims().vocabulary, sampleable);
            sampling.blocked = DeviceBuffer<unsigned>(words.size(), "the ids that are never drawn");
            upload(sampling.blocked.data(), words.data(), sampling.blocked.bytes());
        }
        const auto recent = static_cast<std::size_t>(sampler_recent(options));
        sampling.recent = DeviceBuffer<int>(recent, "the recent tokens");
        sampling.incoming = DeviceBuffer<int>(recent, "the recent tokens");
        sampling.state = DeviceBuffer<SamplerState>(1, "the state of drawing tokens");
        sampling.start = sampler_state(options, sampling.blocked.data(), sampling.recent.data());
        upload(sampling.state.data(), &sampling.start, sizeof sampling.start);
        sampling_.emplace(std::move(sampling));
        accept(history_.tokens());
        engine_.synchronise();
    }

    std::int32_t sample() override {
        if (!sampling_)
            throw Error(ErrorCode::invalid_request, "no sampling options: expected set_sampling before");
        history_.require_logits();
        engine_.use_device();
        engine_.enqueue_draw(logits_, sampling_->state.data());
        const std::int32_t id = drawn_id(engine_.read_drawn(), sampling_->steps);
        ++sampling_->steps;  // a failed draw is no step
        return id;
    }

    void reset() override {
        history_.clear();
        if (!sampling_) return;
        engine_.use_device();
        sampling_->steps = 0;
        upload(sampling_->state.data(), &sampling_->start, sizeof sampling_->start);
    }
    int position() const override { return history_.position(); }
    int context() const override { return history_.context(); }

  private:
    struct Sampling {
        DeviceBuffer<unsigned> blocked;
        DeviceBuffer<int> recent, incoming;  ///< the ring of the history, and tokens on their way into it
        DeviceBuffer<SamplerState> state;
        SamplerState start;
        std::uint64_t steps = 0;
    };

    const Dims& dims() const { return engine_.info().dims; }
    std::size_t vocabulary() const { return static_cast<std::size_t>(dims().vocabulary); }

    void begin(std::span<const std::int32_t> tokens) {
        history_.require_room(tokens);
        file_.require_whole();
        engine_.use_device();
        engine_.take_over(this);
    }

    void append(std::span<const std::int32_t> tokens) {
        history_.append(tokens);
        accept(tokens);
    }

    /// Pageable memory: the driver has read it when this returns.
    void upload(void* to, const void* from, std::size_t bytes) const {
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, engine_.stream()),
              "copying to the device");
    }

    /// Tokens into the history that the repetition penalty looks at.
    void accept(std::span<const std::int32_t> tokens) {
        if (!sampling_ || sampling_->recent.size() == 0 || tokens.empty()) return;
        const auto recent = tokens.last(std::min(tokens.size(), sampling_->recent.size()));
        upload(sampling_->incoming.data(), recent.data(), recent.size_bytes());
        engine_.enqueue_accept(sampling_->state.data(), sampling_->incoming.data(),
                               static_cast<int>(recent.size()));
    }

    /// Up to eight tokens through the fused stages.
    void decode(std::span<const std::int32_t> tokens) {
        const int variant = tokens.size() == 1 ? 0 : decode_variants - 1;
        const DecodeStep<Family>& step = engine_.step(variant);
        std::vector<Row> rows;
        for (std::size_t i = 0; i < tokens.size(); ++i)
            rows.push_back(
                {tokens[i], position() + static_cast<int>(i), 0, cache_capacity(context()), cache_.data()});
        upload(step.row_list(), rows.data(), rows.size() * sizeof(Row));
        engine_.enqueue_step(variant, static_cast<int>(rows.size()));
        logits_ = step.logits() + (rows.size() - 1) * vocabulary();
    }

    /// Many tokens through the kernels of prefill; their last logits only if they are the last of the call.
    void read(std::span<const std::int32_t> tokens, bool last) {
        enqueue(tokens);
        if (!last) return;
        float* out = engine_.step(0).logits();
        engine_.prefill().enqueue_head(engine_.stream(), static_cast<int>(tokens.size()) - 1, 1, out);
        logits_ = out;
    }

    void enqueue(std::span<const std::int32_t> tokens) {
        upload(engine_.prefill().tokens(), tokens.data(), tokens.size_bytes());
        engine_.prefill().enqueue(engine_.stream(),
                                  {engine_.prefill().tokens(), static_cast<int>(tokens.size()), position(),
                                   cache_.data(), cache_capacity(context())});
    }

    /// `rows` rows of logits in host memory, after waiting for them.
    std::span<const float> copy(const float* logits, int rows) {
        const std::size_t count = static_cast<std::size_t>(rows) * vocabulary();
        if (host_.size() < count * sizeof(float)) host_ = PinnedBuffer(count * sizeof(float), "logits");
        check(cudaMemcpyAsync(host_.data(), logits, count * sizeof(float), cudaMemcpyDeviceToHost,
                              engine_.stream()),
              "reading logits");
        engine_.synchronise();
        return {reinterpret_cast<const float*>(host_.data()), count};
    }

    void save_logits() override {
        if (history_.position() == 0 || logits_ == saved_.data() || logits_ == nullptr) return;
        check(cudaMemcpyAsync(saved_.data(), logits_, saved_.bytes(), cudaMemcpyDeviceToDevice,
                              engine_.stream()),
              "keeping a session's logits");
        logits_ = saved_.data();
    }

    Engine<Family>& engine_;
    const gguf::File& file_;
    TokenHistory history_;
    DeviceBuffer<unsigned char> cache_;
    DeviceBuffer<float> saved_;  ///< the logits, when another session computes
    PinnedBuffer host_;
    const float* logits_ = nullptr;  ///< after the last token
    std::optional<Sampling> sampling_;
};

template <class Family>
class CudaModel final : public Model {
  public:
    CudaModel(const gguf::File& file, const LoadOptions& options, const DeviceInfo& device)
        : file_(file),
          engine_(file, options, device),
          device_(device.name + " (cuda:" + std::to_string(device.index) + ")") {}

    const ModelInfo& info() const override { return engine_.info(); }
    int chunk() const override { return cuda_prefill_chunk; }
    std::uint64_t session_bytes(int context) const override {
        const int rows = std::min(context, cuda_prefill_chunk);
        const std::uint64_t workspace = engine_.prefill_bytes(rows);
        const std::uint64_t held = engine_.prefill_bytes();
        return cache_bytes(info().dims, context, cuda_cache_shape) +
               (workspace > held ? workspace - held : 0) +
               4 * static_cast<std::uint64_t>(info().dims.vocabulary) + (std::uint64_t{8} << 20);
    }
    std::optional<std::uint64_t> available_bytes() const override {
        engine_.use_device();
        std::size_t free = 0, total = 0;
        check(cudaMemGetInfo(&free, &total), "asking for the free device memory");
        constexpr std::size_t reserve = std::size_t{128} << 20;  // what the driver may still take
        return free > reserve ? free - reserve : 0;
    }
    std::string_view memory_name() const override { return "GPU memory"; }
    std::unique_ptr<Session> session(int context) const override {
        if (context < 1 || context > info().dims.context)
            throw Error(ErrorCode::invalid_request, "context: expected 1 to " +
                                                        std::to_string(info().dims.context) + ", found " +
                                                        std::to_string(context));
        return std::make_unique<CudaSession<Family>>(engine_, file_, context);
    }
    const std::string& device() const override { return device_; }

  private:
    const gguf::File& file_;
    mutable Engine<Family> engine_;
    std::string device_;
};

}  // namespace gg::cuda
