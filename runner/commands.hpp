// The subcommands. Each adds itself to the command line and, if it is chosen, sets the action to run.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <stdexcept>

namespace gg::runner {

/// What the chosen subcommand does; the program's exit code is 0 if it returns.
struct Action {
    std::function<void()> run;
    bool json = false;  ///< failures are also told on stdout, as JSON
};

void add_run(CLI::App& app, Action& action);
void add_score(CLI::App& app, Action& action);
void add_perplexity(CLI::App& app, Action& action);
void add_tokenize(CLI::App& app, Action& action);
void add_detokenize(CLI::App& app, Action& action);
void add_info(CLI::App& app, Action& action);
void add_quantize(CLI::App& app, Action& action);
void add_synth(CLI::App& app, Action& action);
void add_compile(CLI::App& app, Action& action);

/// The command line is wrong in a way that only shows after it was parsed: exit code 2.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace gg::runner
