// The one exception type of gg. Its message names the file, the field in it, what was expected, what was
// found, and where possible the next step.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace gg {

/// Stable codes: a program may switch on them; messages may change.
enum class ErrorCode {
    invalid_request,
    model_load_failed,
    out_of_memory,
    cuda_error,
    cancelled,
    timeout,
    context_full,
    internal,
};

/// The code's name as it appears in messages and JSON.
constexpr std::string_view to_string(ErrorCode code) {
    switch (code) {
        case ErrorCode::invalid_request:
            return "invalid_request";
        case ErrorCode::model_load_failed:
            return "model_load_failed";
        case ErrorCode::out_of_memory:
            return "out_of_memory";
        case ErrorCode::cuda_error:
            return "cuda_error";
        case ErrorCode::cancelled:
            return "cancelled";
        case ErrorCode::timeout:
            return "timeout";
        case ErrorCode::context_full:
            return "context_full";
        case ErrorCode::internal:
            return "internal";
    }
    return "internal";
}

/// Where a mismatch was seen and what it was. Empty parts are left out of the message.
struct Mismatch {
    std::string file = {};       ///< path of the file, or the name the caller gave to the bytes
    std::string field = {};      ///< key, tensor or header field
    std::string expected = {};   ///< what would have been right
    std::string found = {};      ///< what is there
    std::string next_step = {};  ///< what the user can do about it
};

/// Every failure that gg reports.
class Error : public std::runtime_error {
  public:
    Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
    Error(ErrorCode code, Mismatch mismatch)
        : std::runtime_error(format(mismatch)), code_(code), mismatch_(std::move(mismatch)) {}

    ErrorCode code() const noexcept { return code_; }
    /// The parts of the message; all empty if the error was made from plain text.
    const Mismatch& mismatch() const noexcept { return mismatch_; }

  private:
    static std::string format(const Mismatch& m) {
        std::string text = m.file;
        auto add = [&text](std::string_view separator, std::string_view part) {
            if (part.empty()) return;
            if (!text.empty()) text += separator;
            text += part;
        };
        add(": ", m.field);
        if (!m.expected.empty()) add(": ", "expected " + m.expected);
        if (!m.found.empty()) add(m.expected.empty() ? ": " : ", ", "found " + m.found);
        add(". ", m.next_step);
        return text;
    }

    ErrorCode code_;
    Mismatch mismatch_;
};

/// Throws model_load_failed: the way every reader of a file refuses it.
[[noreturn]] inline void refuse(Mismatch mismatch) {
    throw Error(ErrorCode::model_load_failed, std::move(mismatch));
}

}  // namespace gg
