// A model of any family on the host: weights as they lie in the mapped file, sessions with their caches.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gg/host/binder.hpp"
#include "gg/host/layer.hpp"
#include "gg/host/memory.hpp"
#include "gg/model/session.hpp"
#include "gg/model/token_history.hpp"
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
        : model_(model),
          history_(model.info.dims.vocabulary, context),
          workspace_(scratch_floats(model.info.dims, context, model.pool.size())) {
        for (int i = 0; i < dims().layers; ++i) caches_.emplace_back(dims(), i, context);
        logits_ = FloatBuffer(row_stride(dims().vocabulary));
    }

    void prefill(std::span<const std::int32_t> tokens) override {
        require_room(tokens);
        while (!tokens.empty()) {
            const auto piece = take_piece(tokens, cache_shape.chunk);
            Workspace::Scope scope(workspace_);
            Stream stream = forward(piece);
            if (tokens.empty()) head(stream, stream.x.count - 1, 1, logits_rows());
            append(piece);
        }
        history_.set_logits();
    }

    std::span<const float> logits() override {
        history_.require_logits();
        return {logits_.data(), static_cast<std::size_t>(dims().vocabulary)};
    }

    void score(std::span<const std::int32_t> tokens, const LogitsRow& each) override {
        require_room(tokens);
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
        for (const std::int32_t token : history_.tokens()) sampler.accept(token);
        sampler_ = std::move(sampler);
    }

    std::int32_t sample() override {
        if (!sampler_)
            throw Error(ErrorCode::invalid_request, "no sampling options: expected set_sampling before");
        return sampler_->sample(logits());
    }

    void reset() override {
        history_.clear();
        if (sampler_) sampler_->reset();
    }
    int position() const override { return history_.position(); }
    int context() const override { return history_.context(); }

  private:
    const Dims& dims() const { return model_.info.dims; }
    Rows logits_rows() const { return {logits_.data(), 1, dims().vocabulary, row_stride(dims().vocabulary)}; }

    void require_room(std::span<const std::int32_t> tokens) const {
        history_.require_room(tokens);
        model_.file.require_whole();
    }

    /// Tokens that the caches now hold.
    void append(std::span<const std::int32_t> tokens) {
        history_.append(tokens);
        for (const std::int32_t token : tokens)
            if (sampler_) sampler_->accept(token);
    }

    /// All layers over consecutive tokens.
    Stream forward(std::span<const std::int32_t> tokens) {
        const int rows = static_cast<int>(tokens.size());
        Stream stream{workspace_.rows(rows, dims().hidden), workspace_.rows(rows, dims().hidden)};
        embed(tokens, stream.x);
        for (int layer = 0; layer < dims().layers; ++layer) {
            Step step = step_in(layer);
            Run<typename Family::Layer>::forward(step, model_.weights.layers[static_cast<std::size_t>(layer)],
                                                 stream);
        }
        return stream;
    }

    Step step_in(int layer) {
        return {dims(), model_.pool, model_.set, workspace_, rotary_, caches_.data() + layer,
                layer,  position()};
    }

    void embed(std::span<const std::int32_t> tokens, Rows x) {
        std::vector<float> row(row_stride(dims().hidden));
        for (int i = 0; i < x.count; ++i) {
            decode(model_.weights.embedding.token, tokens[static_cast<std::size_t>(i)], x.row(i));
            if constexpr (Family::Embedding::has_positions) {
                decode(model_.weights.embedding.position, position() + i, row.data());
                for (int j = 0; j < x.width; ++j) x.row(i)[j] += row[static_cast<std::size_t>(j)];
            }
        }
    }

    static void decode(const Matrix& m, int row, float* out) {
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
};

template <class Family>
class HostModel final : public Model {
  public:
    /// Binds every tensor and checks them all. The file must outlive the model.
    HostModel(const gguf::File& file, const LoadOptions& options, InstructionSet set)
        : available_(available_memory()),
          loaded_(file, options, set),
          device_("host, " + std::to_string(loaded_.pool.size()) + " threads, " + to_string(set)) {
        loaded_.info = describe_model<Family>(file);
        bind_weights(file, loaded_.info.dims, loaded_.weights, loaded_.vectors);
        TensorDirectory(file).require_valid_blocks();
    }

    const ModelInfo& info() const override { return loaded_.info; }
    int chunk() const override { return cache_shape.chunk; }
    std::uint64_t session_bytes(int context) const override {
        return host::session_bytes(loaded_.info, context, loaded_.pool.size());
    }
    std::optional<std::uint64_t> available_bytes() const override {
        // The weights are pages of the file that running will bring into memory.
        const std::uint64_t weights = loaded_.info.weight_bytes;
        if (!available_) return {};
        return *available_ > weights ? *available_ - weights : 0;
    }
    std::string_view memory_name() const override { return "memory"; }
    std::unique_ptr<Session> session(int context) const override {
        if (context < 1 || context > loaded_.info.dims.context)
            throw Error(ErrorCode::invalid_request, "context: expected 1 to " +
                                                        std::to_string(loaded_.info.dims.context) +
                                                        ", found " + std::to_string(context));
        return std::make_unique<HostSession<Family>>(loaded_, context);
    }
    const std::string& device() const override { return device_; }

  private:
    std::optional<std::uint64_t> available_;  // before anything was read
    LoadedModel<Family> loaded_;
    std::string device_;
};

}  // namespace gg::host
