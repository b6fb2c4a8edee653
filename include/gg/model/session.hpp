// A loaded model and a conversation with it, whatever the family and the backend.
//
// Logits are [vocabulary] float32. On a GPU they stay there: sample() brings home one id, logits() and
// score() all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gg/model/info.hpp"
#include "gg/model/memory_plan.hpp"
#include "gg/model/stop.hpp"
#include "gg/text/sampler.hpp"

namespace gg {

/// Receives the logits [vocabulary] that follow token `row` of a call; valid during the call only.
using LogitsRow = std::function<void(int row, std::span<const float> logits)>;

/// One sequence of tokens and its key-value cache. A model's sessions share its threads or its device, so one
/// call of one of them runs at a time; only cancel() and set_deadline() may come from another thread.
///
/// What computes ends early with cancelled or timeout: between two pieces of Model::chunk() tokens, on the
/// host between two layers. Pieces that were complete stay appended, position() counts them; if there were
/// any, there are no logits until more is appended.
class Session {
  public:
    virtual ~Session() = default;

    /// Appends tokens. The last chunk of them may still be computed when it returns; whatever needs it waits.
    /// Throws invalid_request for no token or an id outside the vocabulary, context_full if they do not fit;
    /// the session is unchanged then. Throws cancelled, timeout.
    virtual void prefill(std::span<const std::int32_t> tokens) = 0;
    /// The logits after the last token; valid until the next call. Throws invalid_request if there is no
    /// token, if the call that appended it was left by an exception, or if it came with a fork of fewer
    /// tokens than there were.
    virtual std::span<const float> logits() = 0;
    /// Appends tokens and hands out the logits after every one, in order. Throws as prefill.
    virtual void score(std::span<const std::int32_t> tokens, const LogitsRow& each) = 0;

    /// How sample() draws, from the first step on, and which ids it may draw (all, if `sampleable` is empty).
    /// The history that the repetition penalty looks at is all tokens of the session, also those appended
    /// before. Throws invalid_request as text::Sampler; the session is unchanged then.
    virtual void set_sampling(const text::SamplerOptions& options,
                              const std::function<bool(std::int32_t)>& sampleable) = 0;
    /// Draws an id from the logits after the last token, as text::Sampler defines it. Every call is one step;
    /// none appends the id. Throws invalid_request before set_sampling, otherwise as logits().
    virtual std::int32_t sample() = 0;
    /// Draws an id as sample() does, appends it, and returns it before what follows it is computed: a GPU
    /// computes it meanwhile, the host when a call needs it. Throws as sample() and prefill(); nothing is
    /// drawn then.
    virtual std::int32_t decode() = 0;

    /// A session of up to `context` tokens that begins with the first `tokens` tokens of this one, without
    /// computing them anew. It has logits if those are all of them, no sampling options and no deadline.
    /// Throws invalid_request if this session has fewer tokens or no longer holds the keys in front of them
    /// (layers with a window forget), or `context` is too small or too large; out_of_memory.
    virtual std::unique_ptr<Session> fork(int tokens, int context) = 0;

    /// Ends what this session computes now, or its next such call, with the error cancelled. Thread-safe.
    void cancel() noexcept { stop_.cancel(); }
    /// From then on whatever would compute throws timeout; StopSignal::never for none. Thread-safe.
    void set_deadline(StopSignal::Clock::time_point when) noexcept { stop_.set_deadline(when); }

    /// Forgets all tokens and goes back to the first step of drawing; set_sampling stays in force.
    virtual void reset() = 0;
    /// Tokens so far.
    virtual int position() const = 0;
    /// Tokens that fit.
    virtual int context() const = 0;
    /// Memory that it holds for itself, bytes.
    virtual std::uint64_t bytes() const = 0;

  protected:
    StopSignal stop_;
};

/// What a step of one of several sessions came to.
struct Decoded {
    std::int32_t id = -1;        ///< drawn and appended
    std::optional<Error> error;  ///< why there is none
};

/// The weights of one file on one backend. Outlives its sessions.
class Model {
  public:
    virtual ~Model() = default;

    virtual const ModelInfo& info() const = 0;
    /// Tokens of a prompt that are computed together. Sessions take any number in a call; a caller that wants
    /// to show progress or to stop gives no more than these. Making a session may change it.
    virtual int chunk() const = 0;
    /// Memory that a session of `context` tokens takes, bytes: cache and workspace.
    virtual std::uint64_t session_bytes(int context) const = 0;
    /// Bytes that are left for sessions beside the weights; nothing if the system does not tell.
    virtual std::optional<std::uint64_t> available_bytes() const = 0;
    /// What those are bytes of, for messages: "memory", "GPU memory".
    virtual std::string_view memory_name() const = 0;
    /// A new sequence of up to `context` tokens. Throws invalid_request if the model has fewer.
    virtual std::unique_ptr<Session> session(int context) const = 0;
    /// Sessions that decode() takes at most.
    virtual int batch() const = 0;
    /// Session::decode() of several of this model's sessions, one step each, computed together. A session
    /// that fails (cancelled, past its context, ...) gets its error, and the others go on. Throws
    /// invalid_request for no session, more than batch(), one twice or one of another model; cuda_error.
    virtual std::vector<Decoded> decode(std::span<Session* const> sessions) const = 0;
    /// The device that computes, for messages.
    virtual const std::string& device() const = 0;
};

/// The largest context, at most `wanted`, whose session fits into the memory that is left; 0 if none does.
inline int fitting_context(const Model& model, int wanted) {
    const auto memory = model.available_bytes();
    if (!memory) return wanted;
    return largest_context(wanted, *memory, [&](int context) { return model.session_bytes(context); });
}

/// How to load.
struct LoadOptions {
    int threads = 0;  ///< host threads; 0 means all that the process may use
    /// What is being done, and how far it is; called by the thread that loads.
    std::function<void(std::string_view what, std::uint64_t done, std::uint64_t total)> progress = {};
    /// Told what a user should know: conversions of weights, a cache that cannot be used.
    std::function<void(const std::string&)> note = {};
};

}  // namespace gg
