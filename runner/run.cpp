// gg run: continues a text, or answers a question.

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>

#include "commands.hpp"
#include "compute.hpp"
#include "gg/text/chat.hpp"
#include "gg/text/stop.hpp"
#include "gg/text/tokenizer.hpp"
#include "model_file.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "sampling_options.hpp"
#include "signals.hpp"

namespace gg::runner {

namespace {

using Clock = std::chrono::steady_clock;
using Ids = std::vector<std::int32_t>;

struct Options {
    ModelFileOptions model;
    std::string prompt, prompt_file, standard_input;
    int tokens = 256;
    int context = 0;  // 0: the model's
    SamplingOptions sampling;
    ComputeOptions compute;
    bool chat = false;
};

std::string read_prompt(const Options& options) {
    if (options.prompt_file.empty() && options.standard_input.empty()) return options.prompt;
    std::string text = read_input(options.standard_input.empty() ? options.prompt_file : "-");
    // Editors and echo end a text with a newline that nobody means.
    if (text.ends_with('\n')) text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
    return text;
}

Ids make_prompt(const gguf::File& file, const text::Tokenizer& tokenizer, const Options& options) {
    const std::string text = read_prompt(options);
    const auto chat_template = file.get_if<std::string_view>("tokenizer.chat_template").value_or("");
    if (options.chat) {
        if (text.empty()) throw UsageError("--chat needs a question: give -p TEXT, -f FILE or -");
        return text::chat_prompt(tokenizer, chat_template, text);
    }
    const text::ChatFamily family = text::recognize_chat(chat_template);
    if (family != text::ChatFamily::none)
        print_note(
            std::string("this model was made to answer questions, and the prompt is continued as raw text") +
            (family == text::ChatFamily::chatml ? "; --chat asks it a question" : ""));
    Ids ids = tokenizer.encode(text);
    if (tokenizer.adds_bos() && tokenizer.bos()) ids.insert(ids.begin(), *tokenizer.bos());
    if (!ids.empty()) return ids;
    if (const auto start = tokenizer.bos() ? tokenizer.bos() : tokenizer.eos()) return {*start};
    throw UsageError("the prompt is empty and the model has no token to begin a text with: give -p TEXT");
}

/// The tokens that may be in the context at all.
int context_limit(const ModelInfo& info, const Options& options, std::size_t prompt) {
    const int model_context = info.dims.context;
    if (options.context > model_context)
        throw Error(ErrorCode::invalid_request,
                    {.file = options.model.path,
                     .field = "-c",
                     .expected = "at most the model's " + std::to_string(model_context),
                     .found = std::to_string(options.context)});
    const int limit = options.context > 0 ? options.context : model_context;
    if (prompt > static_cast<std::size_t>(limit))
        throw Error(ErrorCode::context_full,
                    {.field = "prompt",
                     .expected = "at most " + std::to_string(limit) + " tokens, the context",
                     .found = std::to_string(prompt),
                     .next_step = limit < model_context ? "Shorten the prompt or raise -c, up to " +
                                                              std::to_string(model_context) + "."
                                                        : "Shorten the prompt."});
    return limit;
}

/// A session for this prompt and reply, within the context and the memory.
std::unique_ptr<Session> make_session(const Model& model, const Options& options, int limit, int prompt) {
    // The last token of the reply needs no place.
    const int wanted = std::min<std::int64_t>(limit, std::int64_t{prompt} + std::max(options.tokens - 1, 0));
    const int fits = fitting_context(model, wanted);
    if (fits < (options.context > 0 ? wanted : prompt))
        throw Error(ErrorCode::out_of_memory,
                    {.field = "context",
                     .expected = "at most " + std::to_string(fits) + " tokens, which fit into the " +
                                 memory_left(model),
                     .found = std::to_string(wanted) + " tokens for prompt and reply, which need " +
                              bytes_text(model.session_bytes(wanted)),
                     .next_step = fits > prompt ? "Lower -n or -c." : "Shorten the prompt."});
    if (fits < wanted)
        print_note("the context is reduced from " + std::to_string(limit) + " to " + std::to_string(fits) +
                   " tokens: no more fit into the " + memory_left(model));
    return model.session(fits);
}

/// Prompt into the session, in pieces so that Ctrl-C and the progress get their turn. Returns whether all of
/// it is there.
bool read_in(Session& session, const Ids& prompt, int chunk) {
    Progress progress("reading the prompt", prompt.size());
    for (std::size_t at = 0; at < prompt.size();) {
        if (interrupted()) return false;
        const std::size_t count = std::min(prompt.size() - at, static_cast<std::size_t>(chunk));
        session.prefill(std::span(prompt).subspan(at, count));
        progress.update(at += count);
    }
    return true;
}

/// Writes the text of tokens up to a stop string.
class Writer {
  public:
    Writer(const text::Tokenizer& tokenizer, std::vector<std::string> stops)
        : decoder_(tokenizer), stops_(std::move(stops)) {}

    void push(std::int32_t id) { write(stops_.push(decoder_.push(id))); }
    /// The text is over: writes what was held back, and ends the line.
    void finish() {
        write(stops_.push(decoder_.finish()));
        write(stops_.finish());
        if (last_ != '\n') write("\n");
    }
    bool stopped() const { return stops_.stopped(); }

  private:
    void write(std::string_view text) {
        if (text.empty()) return;
        last_ = text.back();
        write_output(text);
    }

    text::StreamDecoder decoder_;
    text::StopMatcher stops_;
    char last_ = '\n';  // of what was written
};

struct Reply {
    int tokens = 0;
    int steps = 0;            // of the model after the prompt; the last token needs none
    Clock::time_point first;  // when the first token was drawn, and so the prompt computed
    std::string end;
};

Reply generate(Session& session, const text::Tokenizer& tokenizer, Writer& writer, int most) {
    Reply reply;
    const int begin = session.position();
    while (reply.end.empty()) {
        const bool full = session.position() == session.context();
        const std::int32_t id = full || reply.tokens + 1 == most ? session.sample() : session.decode();
        if (reply.tokens == 0) reply.first = Clock::now();
        if (tokenizer.ends_generation(id)) {
            reply.end = "end of text";
            break;
        }
        ++reply.tokens;
        writer.push(id);
        if (writer.stopped())
            reply.end = "stop string";
        else if (interrupted())
            reply.end = "interrupted";
        else if (reply.tokens == most)
            reply.end = std::to_string(most) + " tokens (-n)";
        else if (full)
            reply.end = "context of " + std::to_string(session.context()) + " tokens is full";
    }
    reply.steps = std::max(std::min(session.position() - begin, reply.tokens - 1), 0);
    return reply;
}

std::string speed(std::size_t tokens, Clock::duration time) {
    const double seconds = std::chrono::duration<double>(time).count();
    return tokens == 0 || seconds <= 0 ? ""
                                       : ", " + fixed(static_cast<double>(tokens) / seconds, 1) + " tok/s";
}

void run(Options options) {
    const DeviceChoice device = choose_device(options.compute);
    const gguf::File file = open_model_file(options.model);
    const ModelInfo info = describe_model(file);
    const text::Tokenizer tokenizer = text::Tokenizer::from_gguf(file);
    check_vocabulary(tokenizer, static_cast<std::uint64_t>(info.dims.vocabulary));
    const Ids prompt = make_prompt(file, tokenizer, options);
    const int limit = context_limit(info, options, prompt.size());
    const std::unique_ptr<Model> model = load_model(file, device);
    const std::unique_ptr<Session> session =
        make_session(*model, options, limit, static_cast<int>(prompt.size()));
    print_note("the prompt is read " + std::to_string(model->chunk()) + " tokens at a time");
    text::SamplerOptions& sampling = options.sampling.sampler;
    if (!options.sampling.seeded) sampling.seed = std::random_device()();
    if (sampling.temperature > 0) print_note("seed: " + std::to_string(sampling.seed));
    session->set_sampling(
        sampling, [&](std::int32_t id) { return id < tokenizer.size() && tokenizer.is_sampleable(id); });

    catch_interrupt();
    const Clock::time_point start = Clock::now();
    const bool read = read_in(*session, prompt, model->chunk());
    Writer writer(tokenizer, options.sampling.stops);
    Reply reply;
    reply.first = Clock::now();
    const int read_tokens = session->position();
    if (!read) {
        reply.end = "interrupted";
    } else if (options.tokens > 0) {
        reply = generate(*session, tokenizer, writer, options.tokens);
    } else {
        session->logits();  // waits for the prompt
        reply.first = Clock::now();
    }
    const Clock::time_point end = Clock::now();
    writer.finish();
    print_note("prompt: " + std::to_string(read_tokens) + " tokens" +
               speed(static_cast<std::size_t>(read_tokens), reply.first - start) +
               "; text: " + std::to_string(reply.tokens) + " tokens" +
               speed(static_cast<std::size_t>(reply.steps), end - reply.first) +
               (reply.end.empty() ? "" : "; ended by: " + reply.end));
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
    CLI::App* command = app.add_subcommand("run", "Continue a text, or answer a question with --chat");
    const auto options = std::make_shared<Options>();
    add_model_file_options(*command, options->model);
    CLI::Option* prompt =
        command->add_option("-p,--prompt", options->prompt, "The prompt")->type_name("TEXT");
    CLI::Option* prompt_file =
        command
            ->add_option("-f,--file", options->prompt_file, "A file with the prompt, less one final newline")
            ->type_name("FILE")
            ->excludes(prompt);
    command->add_option("STDIN", options->standard_input, "-, to take the prompt from standard input")
        ->check(CLI::IsMember({"-"}))
        ->excludes(prompt)
        ->excludes(prompt_file);
    command->add_option("-n,--tokens", options->tokens, "The most tokens to write")
        ->type_name("N")
        ->check(number_range(0, 2e9, "0 or more"));
    command
        ->add_option(
            "-c,--context", options->context,
            "The most tokens of prompt and reply together; by default as many as the model was made for "
            "and as fit into memory")
        ->type_name("CTX")
        ->default_str("the model's")
        ->check(number_range(1, 2e9, "1 or more"));
    command->add_flag("--chat", options->chat, "Ask one question in the model's chat format");
    add_compute_options(*command, options->compute);
    add_sampling_options(*command, options->sampling);
    command->footer(
        "Only the reply is written to standard output. Ctrl-C ends it after the current token, with exit "
        "code\n"
        "0; a second one kills at once. An empty prompt begins a text.");
    command->callback([options, &action] { action = {[options] { run(*options); }, false}; });
}

}  // namespace gg::runner
