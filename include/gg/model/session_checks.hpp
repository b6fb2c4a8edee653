// What calls of a session or a model may ask for, checked alike on every backend.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "gg/model/session.hpp"
#include "gg/model/token_history.hpp"

namespace gg {

/// Throws invalid_request unless the model can have a session of `context` tokens.
inline void require_context(const Dims& dims, int context) {
    if (context >= 1 && context <= dims.context) return;
    throw Error(ErrorCode::invalid_request, "context: expected 1 to " + std::to_string(dims.context) +
                                                ", found " + std::to_string(context));
}

/// Throws invalid_request unless set_sampling() was called.
inline void require_sampling(bool called) {
    if (!called) throw Error(ErrorCode::invalid_request, "no sampling options: expected set_sampling before");
}

/// The fewest tokens that a fork of a session may begin with. A layer with a window keeps a ring of keys:
/// those in front of fewer tokens were overwritten by later ones, or were not copied when the session was
/// itself forked.
inline int fewest_forked_tokens(const Dims& dims, const CacheShape& shape, const TokenHistory& history) {
    int fewest = 1;
    for (int layer = 0; layer < dims.layers; ++layer) {
        const int held = std::max(needed_positions(dims, layer, history.forked()).first,
                                  history.written() - cache_positions(dims, layer, history.context(), shape));
        if (held > 0) fewest = std::max(fewest, held + dims.window - 1);
    }
    return fewest;
}

/// Throws invalid_request unless a session with this history can be forked after `tokens` tokens, for a new
/// context. The backend then copies needed_positions() of every layer, the logits if TokenHistory::fork()
/// has_logits().
inline void require_fork(const Dims& dims, const CacheShape& shape, const TokenHistory& history, int tokens,
                         int context) {
    const auto refuse_fork = [](const std::string& field, const std::string& expected, int found,
                                const std::string& next_step = "") {
        throw Error(ErrorCode::invalid_request, {.field = "fork: " + field,
                                                 .expected = expected,
                                                 .found = std::to_string(found),
                                                 .next_step = next_step});
    };
    if (history.position() == 0)
        throw Error(ErrorCode::invalid_request, "fork: the session has no tokens: expected at least one");
    const std::string to_position = " to " + std::to_string(history.position()) + ", the session's tokens";
    if (tokens < 1 || tokens > history.position()) refuse_fork("tokens", "1" + to_position, tokens);
    const int fewest = fewest_forked_tokens(dims, shape, history);
    if (tokens < fewest)
        refuse_fork("tokens", std::to_string(fewest) + to_position, tokens,
                    "Layers with a window have forgotten the keys in front of fewer: fork earlier, or read "
                    "the tokens anew.");
    if (context < tokens || context > dims.context)
        refuse_fork("context", std::to_string(tokens) + " to " + std::to_string(dims.context), context);
}

/// The sessions of a call of Model::decode() by the backend's type, for which belongs_to(model) says whose
/// they are. Throws invalid_request for none, more than `most`, one twice, and one of another model.
template <class BackendSession, class Owner>
std::vector<BackendSession*> require_batch(std::span<Session* const> sessions, int most, const Owner& model) {
    if (sessions.empty() || sessions.size() > static_cast<std::size_t>(most))
        throw Error(ErrorCode::invalid_request, "decode: expected 1 to " + std::to_string(most) +
                                                    " sessions, found " + std::to_string(sessions.size()));
    std::vector<BackendSession*> batch;
    for (Session* const session : sessions) {
        auto* const own = dynamic_cast<BackendSession*>(session);
        const std::string name = "decode: session " + std::to_string(batch.size());
        if (own == nullptr || !own->belongs_to(model))
            throw Error(ErrorCode::invalid_request, name + " is not one of this model");
        if (std::find(batch.begin(), batch.end(), own) != batch.end())
            throw Error(ErrorCode::invalid_request, name + " is there twice");
        batch.push_back(own);
    }
    return batch;
}

}  // namespace gg
