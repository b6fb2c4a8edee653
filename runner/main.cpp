// The gg command: parses the command line, runs one subcommand, and turns what it throws into an exit code.

#include <fcntl.h>

#include <exception>
#include <new>

#include "commands.hpp"
#include "gg/core/error.hpp"
#include "gg/version.hpp"
#include "output.hpp"
#include "signals.hpp"

namespace {

using namespace gg::runner;

constexpr const char* examples = R"(Examples:
  gg run -m model.gguf -p "Once upon a time" -n 64
  gg run -m instruct.gguf --chat -p "Why is the sky blue?"
  gg score -m model.gguf --text-file page.txt --json
  gg perplexity -m model.gguf --text-file book.txt
  gg tokenize -m model.gguf --text "Hello, world"
  gg detokenize -m model.gguf 9906 11 1917
  gg info model.gguf
  gg quantize model-bf16.gguf model-q4_k.gguf --type Q4_K
  gg synth --preset gpt2 random.gguf
  gg compile model.gguf --arch sm_90a
  gg help run

Text goes to standard output, everything else to standard error. Exit codes: 0 done, also if Ctrl-C ended
gg run or gg perplexity, or the reader of the output went away; 1 failed; 2 wrong usage. With --json, a
failure is also told on standard output as {"error":{"code":..,"message":..}}.)";

#if defined(GG_WITH_CUDA)
constexpr const char* backends = " (host, CUDA)";
#else
constexpr const char* backends = " (host only, built without CUDA)";
#endif

// A file opened later must not become standard input, output or error because that was closed.
void reserve_standard_descriptors() {
    while (true) {
        const int descriptor = ::open("/dev/null", O_RDONLY);
        if (descriptor > 2) ::close(descriptor);
        if (descriptor > 2 || descriptor < 0) return;
    }
}

int fail(const Action& action, std::string_view code, const std::string& message) {
    print_error(message);
    try {
        if (action.json) print_json({{"error", {{"code", code}, {"message", message}}}});
    } catch (const OutputClosed&) {
        // It failed all the same.
    }
    return 1;
}

int run(const Action& action) {
    try {
        try {
            action.run();
            return 0;
        } catch (const gg::Error& error) {
            return fail(action, to_string(error.code()), error.what());
        } catch (const std::bad_alloc&) {
            return fail(action, "out_of_memory", "out of memory");
        }
    } catch (const OutputClosed&) {
        return 0;
    } catch (const UsageError& error) {
        print_error(error.what());
        return 2;
    } catch (const std::exception& error) {
        print_error(error.what());
        return 1;
    }
}

int parse_and_run(int argc, char** argv) {
    CLI::App app("gg runs GPT models from GGUF files.", "gg");
    app.footer(examples);
    app.require_subcommand(1);
    app.set_version_flag("--version", "gg " + std::string(gg::version) + backends);
    app.set_help_flag("-h,--help", "Print help and exit");
    app.option_defaults()->always_capture_default();
    Action action;
    add_run(app, action);
    add_score(app, action);
    add_perplexity(app, action);
    add_tokenize(app, action);
    add_detokenize(app, action);
    add_info(app, action);
    add_quantize(app, action);
    add_synth(app, action);
    add_compile(app, action);
    std::string topic;
    CLI::App* help = app.add_subcommand("help", "Print help on gg or one of its commands");
    help->add_option("COMMAND", topic, "The command")
        ->check(CLI::IsMember({"run", "score", "perplexity", "tokenize", "detokenize", "info", "quantize",
                               "synth", "compile"}));
    const auto print_help = [&app](const CLI::App* command) {
        write_output(command == nullptr ? app.help() : command->help("gg"));
    };
    help->callback([&] {
        action = {[&] { print_help(topic.empty() ? nullptr : app.get_subcommand(topic)); }, false};
    });
    const auto chosen = [&app] {
        const auto commands = app.get_subcommands();
        return commands.empty() ? nullptr : commands[0];
    };

    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        action = {[&] { print_help(chosen()); }, false};
    } catch (const CLI::CallForVersion&) {
        action = {[&] { write_output(app.version() + "\n"); }, false};
    } catch (const CLI::ParseError& error) {
        print_error(error.what());
        print_note("See gg " + (chosen() ? chosen()->get_name() + " " : std::string()) + "--help.");
        return 2;
    } catch (const UsageError& error) {
        print_error(error.what());
        return 2;
    }
    return run(action);
}

}  // namespace

int main(int argc, char** argv) {
    reserve_standard_descriptors();
    install_signal_handlers();
    return parse_and_run(argc, argv);
}
