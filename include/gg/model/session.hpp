// A loaded model and a conversation with it, whatever the family and the backend.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "gg/model/info.hpp"

namespace gg {

/// Receives the logits [vocabulary] that follow token `row` of a call; valid during the call only.
using LogitsRow = std::function<void(int row, std::span<const float> logits)>;

/// One sequence of tokens and its key-value cache. Not thread-safe; a model's sessions share its threads, so
/// one of them computes at a time.
class Session {
  public:
    virtual ~Session() = default;

    /// Appends tokens and returns the logits [vocabulary] after the last one; valid until the next call.
    /// Throws invalid_request for no token or an id outside the vocabulary, context_full if they do not fit;
    /// the session is unchanged then.
    virtual std::span<const float> prefill(std::span<const std::int32_t> tokens) = 0;
    /// Appends tokens and hands out the logits after every one, in order. Throws as prefill.
    virtual void score(std::span<const std::int32_t> tokens, const LogitsRow& each) = 0;
    /// Forgets all tokens.
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
    /// Memory that a session of `context` tokens takes, bytes: cache and workspace.
    virtual std::uint64_t session_bytes(int context) const = 0;
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
