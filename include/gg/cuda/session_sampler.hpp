// The sampler of one session on a GPU: its state there, and the ids that were drawn but not yet looked at.
//
// A draw may run ahead of the host: the step that appends a token ends in the draw of the next one. If the
// session then goes another way, that draw never happened: the state is written anew, from the options, the
// number of draws that count, and the tokens so far.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/sampler_host.hpp"

namespace gg::cuda {

class SessionSampler {
  public:
    /// Throws invalid_request for options out of range, out_of_memory.
    template <class Engine>
    SessionSampler(const Engine& engine, text::SamplerOptions options, int context,
                   const std::function<bool(std::int32_t)>& sampleable) {
        const int vocabulary = engine.info().dims.vocabulary;
        text::Sampler(options, vocabulary);                                // its checks
        options.repeat_window = std::min(options.repeat_window, context);  // there are no more tokens
        if (sampleable) {
            const std::vector<unsigned> words = blocked_words(vocabulary, sampleable);
            blocked_ = DeviceBuffer<unsigned>(words.size(), "the ids that are never drawn");
            engine.upload(blocked_.data(), words.data(), blocked_.bytes());
        }
        const auto recent = static_cast<std::size_t>(sampler_recent(options));
        recent_ = DeviceBuffer<int>(recent, "the recent tokens");
        incoming_ = DeviceBuffer<int>(recent, "the recent tokens");
        state_ = DeviceBuffer<SamplerState>(1, "the state of drawing tokens");
        drawn_ = PinnedBuffer(drawn_slots * sizeof(Drawn), "the drawn tokens");
        start_ =
            sampler_state(options, blocked_.data(), recent_.data(), reinterpret_cast<Drawn*>(drawn_.data()));
    }

    SamplerState* state() const { return state_.data(); }
    std::uint64_t bytes() const {
        return blocked_.bytes() + recent_.bytes() + incoming_.bytes() + state_.bytes();
    }

    /// Whether a draw was enqueued that nobody has taken.
    bool ahead() const { return enqueued_ != taken_; }
    /// Whether such a draw is the session's next one.
    bool goes_on() const { return ahead() && !stale_; }
    /// A draw was enqueued.
    void enqueued() { ++enqueued_; }
    /// The oldest draw that nobody has taken; the caller has waited for it.
    const Drawn& peek() const { return reinterpret_cast<const Drawn*>(drawn_.data())[taken_ % drawn_slots]; }
    /// Takes it: a step, unless it failed. Throws internal if the logits were none that a model gives.
    std::int32_t take() {
        const Drawn drawn = peek();
        ++taken_;
        if (drawn.id < 0) stale_ = true;
        const std::int32_t id = drawn_id(drawn.id, start_.step);
        ++start_.step;
        return id;
    }

    /// The state on the device is not that of the tokens and draws that count.
    void invalidate() { stale_ = true; }
    /// Back to the first step.
    void reset() {
        start_.step = 0;
        stale_ = true;
    }
    /// Tokens were appended to the session: forgets a draw that was made ahead.
    template <class Engine>
    void accept(const Engine& engine, std::span<const std::int32_t> tokens) {
        if (ahead()) stale_ = true;
        if (!stale_) enqueue_accept(engine, tokens);
    }
    /// Makes the state that of the session's `tokens`, for the next draw.
    template <class Engine>
    void prepare(const Engine& engine, std::span<const std::int32_t> tokens) {
        if (!stale_ && !ahead()) return;
        engine.upload(state_.data(), &start_, sizeof start_);
        enqueue_accept(engine, tokens);
        enqueued_ = taken_ = 0;
        stale_ = false;
    }

  private:
    /// Tokens into the history that the repetition penalty looks at.
    template <class Engine>
    void enqueue_accept(const Engine& engine, std::span<const std::int32_t> tokens) {
        if (recent_.size() == 0 || tokens.empty()) return;
        const auto recent = tokens.last(std::min(tokens.size(), recent_.size()));
        engine.upload(incoming_.data(), recent.data(), recent.size_bytes());
        engine.enqueue_accept(state_.data(), incoming_.data(), static_cast<int>(recent.size()));
    }

    DeviceBuffer<unsigned> blocked_;
    DeviceBuffer<int> recent_, incoming_;  ///< the ring of the history, and tokens on their way into it
    DeviceBuffer<SamplerState> state_;
    PinnedBuffer drawn_;
    SamplerState start_;                           ///< what the device has after prepare()
    bool stale_ = true;                            ///< the device has something else
    unsigned long long enqueued_ = 0, taken_ = 0;  ///< draws since the state was written
};

}  // namespace gg::cuda
