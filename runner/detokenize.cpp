// gg detokenize: token ids to text.

#include <unistd.h>

#include <memory>

#include "commands.hpp"
#include "gg/text/tokenizer.hpp"
#include "model_file.hpp"
#include "output.hpp"

namespace gg::runner {

namespace {

struct Options {
    ModelFileOptions model;
    std::vector<std::string> ids;
    bool json = false;
};

void detokenize(const Options& options) {
    const gguf::File file = open_model_file(options.model);
    const text::Tokenizer tokenizer = text::Tokenizer::from_gguf(file);
    std::string words;
    for (const std::string& id : options.ids) words += id + " ";
    const bool standard_input = options.ids.size() == 1 && options.ids[0] == "-";
    if (standard_input) words = read_input("-");
    const std::string text =
        tokenizer.decode(parse_ids(words, tokenizer.size(), standard_input ? "standard input" : "IDS"));
    if (options.json) return print_json({{"text", text}});
    write_output(text);
    if (::isatty(STDOUT_FILENO) == 1) write_output("\n");
}

}  // namespace

void add_detokenize(CLI::App& app, Action& action) {
    CLI::App* command = app.add_subcommand("detokenize", "Print the text of token ids");
    const auto options = std::make_shared<Options>();
    add_model_file_options(*command, options->model);
    command->add_option("IDS", options->ids, "Token ids (- reads them from standard input)")->required();
    command->add_flag("--json", options->json,
                      "Print {\"text\":..}, where bytes that are not UTF-8 become U+FFFD");
    command->footer(
        "Prints exactly the bytes of the tokens, special ones as their text; a newline is added on a\n"
        "terminal only. The model may be a file with a vocabulary only.");
    command->callback([options, &action] { action = {[options] { detokenize(*options); }, options->json}; });
}

}  // namespace gg::runner
