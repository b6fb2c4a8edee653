// The options that name the tokens to score: a file of ids, or a text.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gg/model/info.hpp"
#include "gg/text/tokenizer.hpp"

namespace gg::runner {

/// --tokens-file and --text-file, of which one is given.
struct TokenSource {
    std::string tokens_file, text_file;

    const std::string& name() const { return tokens_file.empty() ? text_file : tokens_file; }
};

/// Tokens, and what made them if they come from a text.
struct SourceTokens {
    std::vector<std::int32_t> ids;
    std::optional<text::Tokenizer> tokenizer;

    /// The token that the model wants at the beginning of a text, if it does; `ids` begins with it.
    std::optional<std::int32_t> beginning() const {
        return tokenizer && tokenizer->adds_bos() ? tokenizer->bos() : std::nullopt;
    }
};

void add_token_source_options(CLI::App& command, TokenSource& source);

/// Reads ids, or tokenises a text with the model's tokenizer. Throws gg::Error.
SourceTokens read_tokens(const gguf::File& file, const ModelInfo& info, const TokenSource& source);

}  // namespace gg::runner
