// A sequence of tokens on the host: its caches, scratch space and logits, and the walk over the layers. A
// token that decode() appended is computed when the next call needs it, so that the caller has it at once,
// and a last one never is.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gg/host/binder.hpp"
#include "gg/host/layer.hpp"
#include "gg/model/session_checks.hpp"
#include "gg/model/weights.hpp"

namespace gg::host {

/// What the sessions of a model share.
template <class Family>
struct LoadedModel {
    const gguf::File& file;
    ModelInfo info;
    ModelWeights<Family, HostStore> weights;
    VectorStorage vectors;
    InstructionSet set;
    mutable ThreadPool pool;

    LoadedModel(const gguf::File& from, const LoadOptions& options, InstructionSet instruction_set)
        : file(from), set(instruction_set), pool(options.threads) {}
};

template <class Family>
class HostSession final : public Session {
  public:
    HostSession(const LoadedModel<Family>& model, int context)
        : HostSession(model, TokenHistory(model.info.dims.vocabulary, context)) {}

    void prefill(std::span<const std::int32_t> tokens) override {
        settle();
        history_.require_room(tokens);
        model_.file.require_whole();
        extend(tokens);
    }

    std::span<const float> logits() override {
        settle();
        history_.require_logits();
        return {logits_.data(), static_cast<std::size_t>(dims().vocabulary)};
    }

    void score(std::span<const std::int32_t> tokens, const LogitsRow& each) override {
        settle();
        history_.require_room(tokens);
        model_.file.require_whole();
        int done = 0;
        while (!tokens.empty()) {
            const auto piece = take_piece(tokens, cache_shape.chunk);
            Workspace::Scope scope(workspace_);
            Stream stream = forward(piece);
            append(piece);
            for (int row = 0; row < stream.x.count; row += scored_rows) {
                Workspace::Scope rows_scope(workspace_);
                const int count = std::min(scored_rows, stream.x.count - row);
                const Rows out = workspace_.rows(count, dims().vocabulary);
                head(stream, row, count, out);
                for (int i = 0; i < count; ++i)
                    each(done + row + i, {out.row(i), static_cast<std::size_t>(dims().vocabulary)});
                if (tokens.empty() && row + count == stream.x.count)
                    std::copy_n(out.row(count - 1), dims().vocabulary, logits_.data());
            }
            done += static_cast<int>(piece.size());
        }
        history_.set_logits();
    }

    void set_sampling(const text::SamplerOptions& options,
                      const std::function<bool(std::int32_t)>& sampleable) override {
        text::Sampler sampler(options, dims().vocabulary, sampleable);
        settle();
        for (const std::int32_t token : history_.tokens()) sampler.accept(token);
        sampler_ = std::move(sampler);
    }

    std::int32_t sample() override {
        require_sampling(sampler_.has_value());
        return sampler_->sample(logits());
    }

    std::int32_t decode() override {
        require_sampling(sampler_.has_value());
        settle();
        history_.require_logits();
        history_.require_room(1);
        model_.file.require_whole();
        stop_.check();
        owed_ = sampler_->sample(logits());
        return *owed_;
    }

    std::unique_ptr<Session> fork(int tokens, int context) override {
        settle();
        require_fork(dims(), cache_shape, history_, tokens, context);
        std::unique_ptr<HostSession> session(new HostSession(model_, history_.fork(tokens, context)));
        for (int layer = 0; layer < dims().layers; ++layer) {
            const auto i = static_cast<std::size_t>(layer);
            session->caches_[i].copy(caches_[i], needed_positions(dims(), layer, tokens));
        }
        if (session->history_.has_logits())
            std::copy_n(logits_.data(), dims().vocabulary, session->logits_.data());
        return session;
    }

    std::uint64_t bytes() const override {
        std::uint64_t bytes = workspace_.bytes() + rotary_.bytes() + logits_.bytes() +
                              history_.tokens().capacity() * sizeof(std::int32_t);
        for (const KvCache& cache : caches_) bytes += cache.bytes();
        return bytes + (sampler_ ? sampler_->bytes() : 0);
    }

    bool belongs_to(const LoadedModel<Family>& model) const { return &model == &model_; }

    void reset() override {
        owed_.reset();
        history_.clear();
        if (sampler_) sampler_->reset();
    }
    int position() const override { return history_.position() + (owed_ ? 1 : 0); }
    int context() const override { return history_.context(); }

  private:
    HostSession(const LoadedModel<Family>& model, TokenHistory history)
        : model_(model),
          history_(std::move(history)),
          workspace_(scratch_floats(model.info.dims, context(), model.pool.size())),
          logits_(row_stride(model.info.dims.vocabulary)) {
        for (int i = 0; i < dims().layers; ++i) caches_.emplace_back(dims(), i, context());
    }

    const Dims& dims() const { return model_.info.dims; }
    Rows logits_rows() const { return {logits_.data(), 1, dims().vocabulary, row_stride(dims().vocabulary)}; }

    /// Computes what decode() has appended.
    void settle() {
        if (!owed_) return;
        const std::int32_t id = *owed_;
        extend({&id, 1});
        owed_.reset();
    }

    /// Computes and appends tokens, and the logits after the last one.
    void extend(std::span<const std::int32_t> tokens) {
        while (!tokens.empty()) {
            const auto piece = take_piece(tokens, cache_shape.chunk);
            Workspace::Scope scope(workspace_);
            Stream stream = forward(piece);
            if (tokens.empty()) head(stream, stream.x.count - 1, 1, logits_rows());
            append(piece);
        }
        history_.set_logits();
    }

    /// Tokens that the caches now hold.
    void append(std::span<const std::int32_t> tokens) {
        history_.append(tokens);
        for (const std::int32_t token : tokens)
            if (sampler_) sampler_->accept(token);
    }

    /// All layers over consecutive tokens. Left by cancelled or timeout, it has changed only slots of the
    /// caches that hold no key which the tokens so far still need.
    Stream forward(std::span<const std::int32_t> tokens) {
        stop_.check();
        history_.begin(tokens.size());
        const int rows = static_cast<int>(tokens.size());
        Stream stream{workspace_.rows(rows, dims().hidden), workspace_.rows(rows, dims().hidden)};
        embed(tokens, stream.x);
        for (int layer = 0; layer < dims().layers; ++layer) {
            if (layer > 0) stop_.check();
            Step step = step_in(layer);
            Run<typename Family::Layer>::forward(step, model_.weights.layers[static_cast<std::size_t>(layer)],
                                                 stream);
        }
        return stream;
    }

    Step step_in(int layer) {
        return {dims(), model_.pool,        model_.set, workspace_, rotary_, caches_.data() + layer,
                layer,  history_.position()};
    }

    void embed(std::span<const std::int32_t> tokens, Rows x) {
        std::vector<float> row(row_stride(dims().hidden));
        for (int i = 0; i < x.count; ++i) {
            decode_row(model_.weights.embedding.token, tokens[static_cast<std::size_t>(i)], x.row(i));
            if constexpr (Family::Embedding::has_positions) {
                decode_row(model_.weights.embedding.position, history_.position() + i, row.data());
                for (int j = 0; j < x.width; ++j) x.row(i)[j] += row[static_cast<std::size_t>(j)];
            }
        }
    }

    static void decode_row(const Matrix& m, int row, float* out) {
        format::decode_row(m.type, m.data + static_cast<std::size_t>(row) * m.row_bytes,
                           static_cast<std::uint64_t>(m.columns), out);
    }

    /// Logits of rows [first, first + count) of the stream.
    void head(Stream& stream, int first, int count, Rows out) {
        Workspace::Scope scope(workspace_);
        Step step = step_in(0);
        Stream part{stream.x.part(first, count), stream.delta.part(first, count), stream.pending};
        const Rows y = workspace_.rows(count, dims().hidden);
        normalise<typename Family::FinalNorm>(step, model_.weights.final_norm, part, y);
        multiply(step, Product{model_.weights.head, {}, y, out});
    }

    const LoadedModel<Family>& model_;
    TokenHistory history_;
    std::vector<KvCache> caches_;
    RotaryTable rotary_;
    Workspace workspace_;
    FloatBuffer logits_;
    std::optional<text::Sampler> sampler_;
    std::optional<std::int32_t> owed_;  ///< appended, not yet computed
};

}  // namespace gg::host
