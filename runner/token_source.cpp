#include "token_source.hpp"

#include "output.hpp"

namespace gg::runner {

void add_token_source_options(CLI::App& command, TokenSource& source) {
    CLI::Option_group* group = command.add_option_group("Tokens", "One of");
    group
        ->add_option("--tokens-file", source.tokens_file,
                     "Token ids separated by blanks (- is standard input)")
        ->type_name("FILE");
    group
        ->add_option("--text-file", source.text_file,
                     "A text, every byte of it, after a beginning-of-text token if the model wants one (- is "
                     "standard input)")
        ->type_name("FILE");
    group->require_option(1);
}

SourceTokens read_tokens(const gguf::File& file, const ModelInfo& info, const TokenSource& source) {
    SourceTokens tokens;
    if (!source.tokens_file.empty()) {
        tokens.ids = parse_ids(read_input(source.tokens_file), info.dims.vocabulary, source.tokens_file);
        return tokens;
    }
    tokens.tokenizer = text::Tokenizer::from_gguf(file);
    check_vocabulary(*tokens.tokenizer, static_cast<std::uint64_t>(info.dims.vocabulary));
    tokens.ids = tokens.tokenizer->encode(read_input(source.text_file));
    if (const auto beginning = tokens.beginning()) tokens.ids.insert(tokens.ids.begin(), *beginning);
    return tokens;
}

}  // namespace gg::runner
