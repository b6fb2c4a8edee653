// A conversation with a model on a GPU. Single tokens go through the graph of a decoding step, up to eight
// tokens through the fused stages, more through the kernels of prefill.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gg/cuda/decoding.hpp"
#include "gg/cuda/engine.hpp"
#include "gg/cuda/session_sampler.hpp"
#include "gg/model/session_checks.hpp"

namespace gg::cuda {

template <class Family>
class CudaSession final : public Session {
  public:
    /// `history` has the tokens of a forked session, whose cache is still to be filled.
    CudaSession(Engine<Family>& engine, Decoding<Family>& decoding, const gguf::File& file,
                TokenHistory history)
        : engine_(engine), decoding_(decoding), file_(file), history_(std::move(history)) {
        const int context = history_.context();
        engine.use_device();
        require_context(engine.budget(), context, [&](int c) { return engine.session_bytes(c); });
        engine.reserve_prefill(context);
        const Dims& d = dims();
        memory_ = engine.budget().reserve(engine.own_bytes(context), "a session");
        cache_ =
            DeviceBuffer<unsigned char>(cache_bytes(d, context, cuda_cache_shape), "the key-value cache");
        logits_ = DeviceBuffer<float>(vocabulary(), "a session's logits");
        // Attention multiplies whole tiles of keys: what is not there yet must be numbers.
        check(cudaMemsetAsync(cache_.data(), 0, cache_.bytes(), engine.stream()),
              "clearing the key-value cache");
    }
    ~CudaSession() override {
        // Buffers are freed after what still uses them.
        cudaSetDevice(engine_.device());
        cudaStreamSynchronize(engine_.stream());
    }

    void prefill(std::span<const std::int32_t> tokens) override {
        begin(tokens);
        while (!tokens.empty()) {
            const auto piece = begin_piece(tokens);
            const int count = static_cast<int>(piece.size());
            if (count <= decode_rows[decode_variants - 1]) {
                enqueue_fused(piece);
            } else {
                enqueue(piece);
                if (tokens.empty())
                    engine_.prefill().enqueue_head(engine_.stream(), count - 1, 1, logits_.data());
            }
            append(piece);
        }
        history_.set_logits();
    }

    std::span<const float> logits() override {
        history_.require_logits();
        engine_.use_device();
        return copy(logits_.data(), 1);
    }

    void score(std::span<const std::int32_t> tokens, const LogitsRow& each) override {
        begin(tokens);
        int done = 0;
        while (!tokens.empty()) {
            const auto piece = begin_piece(tokens);
            enqueue(piece);
            append(piece);
            const int rows = static_cast<int>(piece.size());
            for (int row = 0; row < rows; row += cuda_scored_rows) {
                const int count = std::min(cuda_scored_rows, rows - row);
                float* out = engine_.prefill().logits();
                engine_.prefill().enqueue_head(engine_.stream(), row, count, out);
                const std::span<const float> values = copy(out, count);
                if (tokens.empty() && row + count == rows)
                    check(cudaMemcpyAsync(logits_.data(), out + std::size_t(count - 1) * vocabulary(),
                                          logits_.bytes(), cudaMemcpyDeviceToDevice, engine_.stream()),
                          "keeping the last logits");
                for (int i = 0; i < count; ++i)
                    each(done + row + i, values.subspan(std::size_t(i) * vocabulary(), vocabulary()));
            }
            done += rows;
        }
        engine_.note_overflows();
        history_.set_logits();
    }

    void set_sampling(const text::SamplerOptions& options,
                      const std::function<bool(std::int32_t)>& sampleable) override {
        engine_.use_device();
        engine_.synchronise();  // a step may still write to the sampler that this one replaces
        SessionSampler sampler(engine_, options, context(), sampleable);
        sampler_ = std::move(sampler);
    }

    std::int32_t sample() override {
        require_sampling(sampler_.has_value());
        history_.require_logits();
        engine_.use_device();
        const bool drawn = sampler_->goes_on();
        if (!drawn) {
            sampler_->prepare(engine_, history_.tokens());
            engine_.enqueue_draw(row(0, position(), 0));
            sampler_->enqueued();
        }
        engine_.synchronise();
        engine_.note_overflows(sampler_->peek().overflows);
        const std::int32_t id = sampler_->take();
        // What was drawn ahead counts as appended on the device; here it is not.
        if (drawn) sampler_->invalidate();
        return id;
    }

    std::int32_t decode() override {
        CudaSession* const self = this;
        const Decoded decoded = std::move(decoding_.decode({&self, 1})[0]);
        if (decoded.error) throw *decoded.error;
        return decoded.id;
    }

    std::unique_ptr<Session> fork(int tokens, int context) override {
        require_fork(dims(), cuda_cache_shape, history_, tokens, context);
        auto out = std::make_unique<CudaSession>(engine_, decoding_, file_, history_.fork(tokens, context));
        for (int layer = 0; layer < dims().layers; ++layer)
            copy_cache(*out, layer, needed_positions(dims(), layer, tokens));
        if (out->history_.has_logits())
            check(cudaMemcpyAsync(out->logits_.data(), logits_.data(), logits_.bytes(),
                                  cudaMemcpyDeviceToDevice, engine_.stream()),
                  "copying logits");
        engine_.synchronise();
        return out;
    }

    /// Whether it is a session of the model with this.
    bool belongs_to(const Decoding<Family>& decoding) const { return &decoding_ == &decoding; }

    void reset() override {
        history_.clear();
        if (sampler_) sampler_->reset();
    }
    int position() const override { return history_.position(); }
    int context() const override { return history_.context(); }
    std::uint64_t bytes() const override {
        return cache_.bytes() + logits_.bytes() + (sampler_ ? sampler_->bytes() : 0);
    }

  private:
    friend class Decoding<Family>;

    const Dims& dims() const { return engine_.info().dims; }
    std::size_t vocabulary() const { return static_cast<std::size_t>(dims().vocabulary); }

    void begin(std::span<const std::int32_t> tokens) {
        history_.require_room(tokens);
        file_.require_whole();
        engine_.use_device();
    }
    /// The next piece of the tokens, once it may be enqueued.
    std::span<const std::int32_t> begin_piece(std::span<const std::int32_t>& tokens) {
        engine_.pace();
        stop_.check();
        return take_piece(tokens, engine_.step_rows());
    }
    void append(std::span<const std::int32_t> tokens) {
        if (sampler_) sampler_->accept(engine_, tokens);
        history_.append(tokens);
    }

    /// Throws what keeps the session from drawing and appending a token.
    void require_step() {
        require_sampling(sampler_.has_value());
        history_.require_logits();
        history_.require_room(1);
        file_.require_whole();
        stop_.check();
    }

    /// This session as a row of a step; `index` is the first row of its tokens.
    Row row(std::int32_t token, int position, int index) const {
        return {token,
                position,
                index,
                cache_capacity(context()),
                cache_.data(),
                logits_.data(),
                sampler_ ? sampler_->state() : nullptr};
    }

    /// Up to eight tokens through the fused stages.
    void enqueue_fused(std::span<const std::int32_t> tokens) {
        const int variant = tokens.size() == 1 ? 0 : decode_variants - 1;
        std::vector<Row> rows;
        for (const std::int32_t token : tokens) {
            rows.push_back(row(token, position() + static_cast<int>(rows.size()), 0));
            if (rows.size() < tokens.size()) rows.back().logits = nullptr;
        }
        engine_.upload_rows(variant, rows);
        engine_.enqueue_step(variant, static_cast<int>(rows.size()), false);
    }

    /// Many tokens through the kernels of prefill.
    void enqueue(std::span<const std::int32_t> tokens) {
        engine_.upload(engine_.prefill().tokens(), tokens.data(), tokens.size_bytes());
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

    /// Enqueues a copy of a layer's keys and values.
    void copy_cache(const CudaSession& to, int layer, const CachePositions& range) const {
        const LayerPlace place = engine_.places()[static_cast<std::size_t>(layer)];
        const LayerCache from_cache = layer_cache(cache_.data(), dims(), context(), place);
        const LayerCache to_cache = layer_cache(to.cache_.data(), dims(), to.context(), place);
        const auto stride = static_cast<std::size_t>(head_stride(dims().head_dim));
        for (int at = range.first, count; at < range.end; at += count) {
            const int from_slot = at % from_cache.positions, to_slot = at % to_cache.positions;
            count =
                std::min({range.end - at, from_cache.positions - from_slot, to_cache.positions - to_slot});
            for (const auto part : {&LayerCache::keys, &LayerCache::values})
                check(cudaMemcpy2DAsync(to_cache.*part + static_cast<std::size_t>(to_slot) * stride,
                                        static_cast<std::size_t>(to_cache.positions) * stride * 2,
                                        from_cache.*part + static_cast<std::size_t>(from_slot) * stride,
                                        static_cast<std::size_t>(from_cache.positions) * stride * 2,
                                        static_cast<std::size_t>(count) * stride * 2,
                                        static_cast<std::size_t>(dims().kv_heads), cudaMemcpyDeviceToDevice,
                                        engine_.stream()),
                      "copying the key-value cache");
        }
    }

    Engine<Family>& engine_;
    Decoding<Family>& decoding_;
    const gguf::File& file_;
    TokenHistory history_;
    Reservation memory_;
    DeviceBuffer<unsigned char> cache_;
    DeviceBuffer<float> logits_;  ///< after the last token
    PinnedBuffer host_;
    std::optional<SessionSampler> sampler_;
};

}  // namespace gg::cuda
