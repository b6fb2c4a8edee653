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

/// What was appended, whether there are logits after it, and how far the caches were written.
class TokenHistory {
  public:
    TokenHistory(int vocabulary, int context) : vocabulary_(vocabulary), context_(context) {
        tokens_.reserve(static_cast<std::size_t>(context));
    }

    /// Of a session forked off this one's: its first tokens, and its logits if those are all.
    TokenHistory fork(int tokens, int context) const {
        TokenHistory copy(vocabulary_, context);
        copy.append(std::span(tokens_).first(static_cast<std::size_t>(tokens)));
        copy.forked_ = tokens;
        if (tokens == position() && has_logits()) copy.set_logits();
        return copy;
    }

    /// Throws invalid_request for no token or an id outside the vocabulary, context_full if they do not fit.
    void require_room(std::span<const std::int32_t> tokens) const {
        if (tokens.empty()) throw Error(ErrorCode::invalid_request, "no tokens: expected at least one");
        for (std::size_t i = 0; i < tokens.size(); ++i)
            if (tokens[i] < 0 || tokens[i] >= vocabulary_)
                throw Error(ErrorCode::invalid_request,
                            "token " + std::to_string(i) + ": expected an id from 0 to " +
                                std::to_string(vocabulary_ - 1) + ", found " + std::to_string(tokens[i]));
        require_room(tokens.size());
    }
    /// The last of these for a number of tokens.
    void require_room(std::size_t tokens) const {
        if (tokens > static_cast<std::size_t>(context_ - position()))
            throw Error(ErrorCode::context_full,
                        std::to_string(tokens) + " tokens do not fit: " + std::to_string(position()) +
                            " of " + std::to_string(context_) +
                            " tokens of the context are taken. Make the context larger or "
                            "begin anew.");
    }

    /// Throws invalid_request unless there are logits after the last token.
    void require_logits() const {
        if (position() == 0)
            throw Error(ErrorCode::invalid_request, "no logits: expected at least one token before");
        if (!has_logits())
            throw Error(ErrorCode::invalid_request,
                        position() == forked_
                            ? "no logits: only the tokens in front were forked. Append a token."
                            : "no logits: the last call was not completed. Append a token, or begin anew.");
    }

    void append(std::span<const std::int32_t> tokens) {
        tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    }
    /// Keys and values of the next `tokens` tokens are being written, which may come to nothing.
    void begin(std::size_t tokens) { written_ = std::max(written_, position() + static_cast<int>(tokens)); }
    /// There are logits after the last token now.
    void set_logits() { logits_position_ = position(); }
    /// There are none any more.
    void lose_logits() { logits_position_ = -1; }
    void clear() {
        tokens_.clear();
        logits_position_ = forked_ = written_ = 0;
    }

    const std::vector<std::int32_t>& tokens() const { return tokens_; }
    bool has_logits() const { return position() > 0 && logits_position_ == position(); }
    /// Tokens that came from the session it was forked off; 0 if it was not.
    int forked() const { return forked_; }
    /// Where the cache was written to since it was cleared: slots of a ring hold what lies before that.
    int written() const { return std::max(written_, position()); }
    int position() const { return static_cast<int>(tokens_.size()); }
    int context() const { return context_; }

  private:
    int vocabulary_, context_;
    std::vector<std::int32_t> tokens_;
    int logits_position_ = 0;  ///< the tokens in front of the logits
    int forked_ = 0, written_ = 0;
};

}  // namespace gg
