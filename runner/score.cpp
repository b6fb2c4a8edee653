// gg score: the log-probability of every next token of a text.

#include <algorithm>
#include <cmath>
#include <memory>

#include "commands.hpp"
#include "compute.hpp"
#include "gg/model/perplexity.hpp"
#include "model_file.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "token_source.hpp"

namespace gg::runner {

namespace {

struct Options {
    ModelFileOptions model;
    TokenSource source;
    ComputeOptions compute;
    bool json = false;
};

void require_length(std::size_t tokens, int context, const std::string& source) {
    // The last token is only predicted, so it needs no place in the context.
    if (tokens >= 2 && tokens - 1 <= static_cast<std::size_t>(context)) return;
    throw Error(tokens < 2 ? ErrorCode::invalid_request : ErrorCode::context_full,
                {.file = source,
                 .expected = "2 to " + std::to_string(context + 1) + " tokens, as the model's context is " +
                             std::to_string(context),
                 .found = std::to_string(tokens),
                 .next_step = tokens < 2 ? "" : "Score it in shorter pieces."});
}

std::vector<double> score_tokens(const Model& model, const std::vector<std::int32_t>& tokens) {
    const std::size_t rows = tokens.size() - 1;
    const std::unique_ptr<Session> session = model.session(static_cast<int>(rows));
    std::vector<double> result;
    Progress progress("scoring", rows);
    const auto chunk = static_cast<std::size_t>(model.chunk());
    for (std::size_t at = 0; at < rows; at += chunk) {
        const std::size_t count = std::min(rows - at, chunk);
        session->score(std::span(tokens).subspan(at, count), [&](int row, std::span<const float> logits) {
            const std::int32_t next = tokens[at + static_cast<std::size_t>(row) + 1];
            result.push_back(logits[static_cast<std::size_t>(next)] - log_sum(logits));
            if (std::isnan(result.back()))
                throw Error(ErrorCode::internal, {.field = "logits of position " + std::to_string(at + row),
                                                  .found = "no probabilities (NaN or infinity)"});
        });
        progress.update(at + count);
    }
    return result;
}

void score(const Options& options) {
    const DeviceChoice device = choose_device(options.compute);
    const gguf::File file = open_model_file(options.model);
    const ModelInfo info = describe_model(file);
    const std::string& source = options.source.name();
    const std::vector<std::int32_t> tokens = read_tokens(file, info, options.source).ids;
    require_length(tokens.size(), info.dims.context, source);
    const std::unique_ptr<Model> model = load_model(file, device);
    require_memory_to_score(*model, static_cast<int>(tokens.size()), source, "Score it in shorter pieces.");
    const std::vector<double> logprob = score_tokens(*model, tokens);
    double nll = 0;
    for (const double value : logprob) nll -= value;
    nll /= static_cast<double>(logprob.size());
    if (options.json)
        return print_json(
            {{"tokens", tokens}, {"logprob", logprob}, {"nll", nll}, {"perplexity", std::exp(nll)}});
    write_output("tokens      " + std::to_string(tokens.size()) + "\nnll         " + fixed(nll, 6) +
                 " per token (mean negative log-likelihood, nats)\nperplexity  " + fixed(std::exp(nll), 4) +
                 "\n");
}

}  // namespace

void add_score(CLI::App& app, Action& action) {
    CLI::App* command = app.add_subcommand("score", "Print the log-probability of every next token");
    const auto options = std::make_shared<Options>();
    add_model_file_options(*command, options->model);
    add_token_source_options(*command, options->source);
    add_compute_options(*command, options->compute);
    command->add_flag("--json", options->json,
                      "Print {\"tokens\":[..],\"logprob\":[..],\"nll\":x,\"perplexity\":x}");
    command->footer(
        "logprob[i] is the natural logarithm of the probability of tokens[i + 1] after all tokens before it, "
        "so\n"
        "it has one entry fewer than tokens. nll is the mean of -logprob, perplexity is exp(nll).");
    command->callback([options, &action] { action = {[options] { score(*options); }, options->json}; });
}

}  // namespace gg::runner
