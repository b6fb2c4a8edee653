// The tokens of a session and what may be done with them, the same on every backend.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gg/core/error.hpp"

namespace gg {

/// Takes up to `most` tokens off the front.
inline std::span<const std::int32_t> take_piece(std::span<const std::int32_t>& tokens, int most) {
    const auto piece = tokens.first(std::min(tokens.size(), static_cast<std::size_t>(most)));
    tokens = tokens.subspan(piece.size());
    return piece;
}

class TokenHistory {
  public:
    TokenHistory(int vocabulary, int context) : vocabulary_(vocabulary), context_(context) {
        tokens_.reserve(static_cast<std::size_t>(context));
    }

    /// Throws invalid_request for no token or an id outside the vocabulary, context_full if they do not fit.
    void require_room(std::span<const std::int32_t> tokens) const {
        if (tokens.empty()) throw Error(ErrorCode::invalid_request, "no tokens: expected at least one");
        for (std::size_t i = 0; i < tokens.size(); ++i)
            if (tokens[i] < 0 || tokens[i] >= vocabulary_)
                throw Error(ErrorCode::invalid_request,
                            "token " + std::to_string(i) + ": expected an id from 0 to " +
                                std::to_string(vocabulary_ - 1) + ", found " + std::to_string(tokens[i]));
        if (tokens.size() > static_cast<std::size_t>(context_ - position()))
            throw Error(ErrorCode::context_full,
                        std::to_string(tokens.size()) + " tokens do not fit: " + std::to_string(position()) +
                            " of " + std::to_string(context_) +
                            " tokens of the context are taken. Make the context larger or "
                            "begin anew.");
    }

    /// Throws invalid_request unless there are logits after the last token.
    void require_logits() const {
        if (position() == 0)
            throw Error(ErrorCode::invalid_request, "no logits: expected at least one token before");
        if (logits_position_ != position())
            throw Error(ErrorCode::invalid_request,
                        "no logits: the last call was not completed. Begin anew.");
    }

    void append(std::span<const std::int32_t> tokens) {
        tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    }
    /// There are logits after the last token now.
    void set_logits() { logits_position_ = position(); }
    void clear() {
        tokens_.clear();
        logits_position_ = 0;
    }

    const std::vector<std::int32_t>& tokens() const { return tokens_; }
    int position() const { return static_cast<int>(tokens_.size()); }
    int context() const { return context_; }

  private:
    int vocabulary_, context_;
    std::vector<std::int32_t> tokens_;
    int logits_position_ = 0;
};

}  // namespace gg
