// gg tokenize: text to token ids.

#include <memory>
#include <sstream>

#include "commands.hpp"
#include "gg/text/tokenizer.hpp"
#include "model_file.hpp"
#include "output.hpp"

namespace gg::runner {

namespace {

using text::Tokenizer;

struct Options {
    ModelFileOptions model;
    std::string text, file, lines;
    Tokenizer::Specials specials = Tokenizer::Specials::as_text;
    bool json = false;
};

std::string parse_json_string(std::string_view line, const std::string& file, std::size_t number) {
    nlohmann::json value = nlohmann::json::parse(line, nullptr, false);
    if (!value.is_string())
        throw Error(ErrorCode::invalid_request, {.file = file,
                                                 .field = "line " + std::to_string(number),
                                                 .expected = "a JSON string",
                                                 .found = std::string(line.substr(0, 60))});
    return value.get<std::string>();
}

void tokenize_lines(const Tokenizer& tokenizer, const Options& options) {
    const std::string input = read_input(options.lines);
    std::string output;
    std::size_t number = 0;
    for (std::size_t at = 0; at < input.size();) {
        const std::size_t end = std::min(input.find('\n', at), input.size());
        const std::string text =
            parse_json_string(std::string_view(input).substr(at, end - at), options.lines, ++number);
        output += nlohmann::json(tokenizer.encode(text, options.specials)).dump() + "\n";
        at = end + 1;
        if (output.size() >= 65536 || at >= input.size()) {
            write_output(output);
            output.clear();
        }
    }
}

void tokenize(const Options& options) {
    const gguf::File file = open_model_file(options.model);
    const Tokenizer tokenizer = Tokenizer::from_gguf(file);
    if (!options.lines.empty()) return tokenize_lines(tokenizer, options);
    const std::string text = options.file.empty() ? options.text : read_input(options.file);
    const std::vector<std::int32_t> ids = tokenizer.encode(text, options.specials);
    if (options.json) return print_json(ids);
    std::string line;
    for (const std::int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
    write_output(line + "\n");
}

}  // namespace

void add_tokenize(CLI::App& app, Action& action) {
    CLI::App* command = app.add_subcommand("tokenize", "Print the token ids of a text");
    const auto options = std::make_shared<Options>();
    add_model_file_options(*command, options->model);
    command->footer(
        "Prints the ids on one line, with --json as one array; --lines prints an array for each line.\nNo "
        "beginning-of-text token is added. The model may be a file with a vocabulary only.");
    CLI::Option_group* source = command->add_option_group("Text", "One of");
    source->add_option("--text", options->text, "The text itself")->type_name("TEXT");
    source->add_option("--file", options->file, "A file, every byte of it (- is standard input)")
        ->type_name("FILE")
        ->check(CLI::Validator([](std::string& name) { return name.empty() ? "empty name" : ""; }, ""));
    source
        ->add_option("--lines", options->lines,
                     "A file with a JSON string on each line (- is standard input)")
        ->type_name("FILE")
        ->check(CLI::Validator([](std::string& name) { return name.empty() ? "empty name" : ""; }, ""));
    source->require_option(1);
    command->add_flag_callback(
        "--special", [options] { options->specials = Tokenizer::Specials::parse; },
        "Take special tokens that the text spells out, such as <|endoftext|>, as what they stand for");
    command->add_flag("--json", options->json, "Print JSON");
    command->callback([options, &action] {
        action = {[options] { tokenize(*options); }, options->json || !options->lines.empty()};
    });
}

}  // namespace gg::runner
