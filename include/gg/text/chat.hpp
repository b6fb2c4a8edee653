// A question to an instruct model as token ids. A file's chat template (tokenizer.chat_template, a Jinja
// program) is never executed: it only tells which family of formats the model was trained on, and the format
// is built here.
//
//   ChatML
//   <|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n
//              The system turn is left out if there is no system message. The default one is the text that
//              the template itself spells out between <|im_start|>system\n and <|im_end|>, if it does.
//   harmony    <|start|>role<|message|>text<|end|>, replies in channels (<|channel|>)
//
// The markers are looked up as special tokens and the texts are encoded as text, so no user's text can forge
// a turn. Errors: invalid_request for a family that cannot be asked, model_load_failed for missing specials.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/text/tokenizer.hpp"

namespace gg::text {

/// The chat formats that are told apart.
enum class ChatFamily { none, chatml, harmony, unknown };

/// The family's name as it appears in messages and JSON.
constexpr std::string_view to_string(ChatFamily family) {
    switch (family) {
        case ChatFamily::none:
            return "none";
        case ChatFamily::chatml:
            return "chatml";
        case ChatFamily::harmony:
            return "harmony";
        case ChatFamily::unknown:
            return "unknown";
    }
    return "unknown";
}

/// The family of a chat template's text; `none` for an empty one.
inline ChatFamily recognize_chat(std::string_view chat_template) {
    const auto has = [&](std::string_view marker) {
        return chat_template.find(marker) != chat_template.npos;
    };
    if (chat_template.empty()) return ChatFamily::none;
    if (has("<|im_start|>")) return ChatFamily::chatml;
    if (has("<|start|>") && has("<|channel|>")) return ChatFamily::harmony;
    return ChatFamily::unknown;
}

/// The system message that a ChatML template writes out when it is given none; empty if it has no such text.
inline std::string default_system_message(std::string_view chat_template) {
    for (const std::string_view opening : {"<|im_start|>system\n", "<|im_start|>system\\n"}) {
        const std::size_t found = chat_template.find(opening);
        if (found == chat_template.npos) continue;
        const std::size_t begin = found + opening.size();
        const std::size_t end = chat_template.find("<|im_end|>", begin);
        const std::string_view text =
            chat_template.substr(begin, end == chat_template.npos ? 0 : end - begin);
        // Quotes, braces and escapes would mean that this is code, not a literal text.
        if (text.find_first_of("'\"{}\\") == text.npos) return std::string(text);
    }
    return {};
}

/// The ids that ask a ChatML model one question; its reply ends at a token that ends generation (<|im_end|>).
/// An empty `system` leaves the system turn out.
inline std::vector<std::int32_t> chatml_prompt(const Tokenizer& tokenizer, std::string_view system,
                                               std::string_view question) {
    const auto special = [&](std::string_view text) {
        const std::optional<std::int32_t> id = tokenizer.find_special(text);
        if (!id)
            refuse({.field = "tokenizer.ggml.tokens",
                    .expected = std::string(text) + " as a special token, as its chat template uses it",
                    .found = "none",
                    .next_step = "Ask without the chat format."});
        return *id;
    };
    const std::int32_t start = special("<|im_start|>"), end = special("<|im_end|>");
    std::vector<std::int32_t> ids;
    const auto add_text = [&](std::string_view text) {
        const std::vector<std::int32_t> encoded = tokenizer.encode(text, Tokenizer::Specials::as_text);
        ids.insert(ids.end(), encoded.begin(), encoded.end());
    };
    const auto add_turn = [&](const std::string& role, std::string_view text) {
        ids.push_back(start);
        add_text(role + "\n" + std::string(text));
        ids.push_back(end);
        add_text("\n");
    };
    if (!system.empty()) add_turn("system", system);
    add_turn("user", question);
    ids.push_back(start);
    add_text("assistant\n");
    return ids;
}

/// The ids that ask the model one question in the format of its chat template.
inline std::vector<std::int32_t> chat_prompt(const Tokenizer& tokenizer, std::string_view chat_template,
                                             std::string_view question) {
    const ChatFamily family = recognize_chat(chat_template);
    if (family == ChatFamily::chatml)
        return chatml_prompt(tokenizer, default_system_message(chat_template), question);
    throw Error(ErrorCode::invalid_request,
                {.field = "tokenizer.chat_template",
                 .expected = "a ChatML template, the format that gg can ask questions in",
                 .found = family == ChatFamily::none      ? "no template: this is not an instruct model"
                          : family == ChatFamily::harmony ? "a harmony template"
                                                          : "a template of another family",
                 .next_step = "Give the text as a raw prompt instead."});
}

}  // namespace gg::text
