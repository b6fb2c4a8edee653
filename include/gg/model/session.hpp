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

#include "gg/model/info.hpp"
#include "gg/text/sampler.hpp"

namespace gg {

/// Receives the logits [vocabulary] that follow token `row` of a call; valid during the call only.
using LogitsRow = std::function<void(int row, std::span<const float> logits)>;

/// One sequence of tokens and its key-value cache. Not thread-safe; a model's sessions share its threads, so
/// one of them computes at a time.
class Session {
  public:
    virtual ~Session() = default;

    /// Appends tokens. The last chunk of them may still be computed when it returns; whatever needs it waits.
    /// Throws invalid_request for no token or an id outside the vocabulary, context_full if they do not fit;
    /// the session is unchanged then.
    virtual void prefill(std::span<const std::int32_t> tokens) = 0;
    /// The logits after the last token; valid until the next call. Throws invalid_request if there is no
    /// token, or if a call of score() was left by an exception since it was appended.
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

    /// Forgets all tokens and goes back to the first step of drawing; set_sampling stays in force.
    virtual void reset() = 0;
    /// Tokens so far.
    virtual int position() const = 0;
    /// Tokens that fit.
    virtual int context() const = 0;
};

/// The weights of one file on one backend. Outlives its sessions.
class Model {
  public:
    virtual ~Model() = default;

    virtual const ModelInfo& info() const = 0;
    /// Tokens of a prompt that are computed together. Sessions take any number in a call; a caller that wants
    /// to show progress or to stop gives no more than these.
    virtual int chunk() const = 0;
    /// Memory that a session of `context` tokens takes, bytes: cache and workspace.
    virtual std::uint64_t session_bytes(int context) const = 0;
    /// Bytes that are left for sessions beside the weights; nothing if the system does not tell.
    virtual std::optional<std::uint64_t> available_bytes() const = 0;
    /// What those are bytes of, for messages: "memory", "GPU memory".
    virtual std::string_view memory_name() const = 0;
    /// A new sequence of up to `context` tokens. Throws invalid_request if the model has fewer.
    virtual std::unique_ptr<Session> session(int context) const = 0;
    /// The device that computes, for messages.
    virtual const std::string& device() const = 0;
};

/// How to load.
struct LoadOptions {
    int threads = 0;  ///< host threads; 0 means all that the process may use
};

}  // namespace gg
