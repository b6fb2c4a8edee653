// gg perplexity: how well a model predicts a text, with error bars, and how far its probabilities are from
// those of a reference model.

#include <algorithm>
#include <cmath>
#include <memory>

#include "commands.hpp"
#include "compute.hpp"
#include "gg/model/perplexity.hpp"
#include "gg/model/reference_file.hpp"
#include "model_file.hpp"
#include "output.hpp"
#include "perplexity_result.hpp"
#include "progress.hpp"
#include "sha256.hpp"
#include "signals.hpp"
#include "token_source.hpp"

namespace gg::runner {

namespace {

using Ids = std::vector<std::int32_t>;

constexpr int default_window = 512;
constexpr int least_window = 3;

struct Options {
    ModelFileOptions model;
    TokenSource source;
    int window = 0;  // 0: the default
    int stride = 0;  // 0: windows do not overlap
    int chunks = 0;  // 0: all
    std::string save_reference, reference;
    ComputeOptions compute;
    bool json = false;
};

[[noreturn]] void refuse_option(const Options& options, std::string field, std::string expected,
                                std::int64_t found, std::string next_step = {}) {
    throw Error(ErrorCode::invalid_request, {.file = options.model.path,
                                             .field = std::move(field),
                                             .expected = std::move(expected),
                                             .found = std::to_string(found),
                                             .next_step = std::move(next_step)});
}

Windows choose_windows(const Options& options, int context) {
    const int window = options.window > 0 ? options.window : std::min(context, default_window);
    if (window > context || window < least_window)
        refuse_option(options, "-c",
                      std::to_string(least_window) + " to the model's context of " + std::to_string(context),
                      window);
    if (options.stride == 0) return Windows::disjoint(window);
    if (options.stride >= window)
        refuse_option(options, "--stride", "less than the window of " + std::to_string(window),
                      options.stride);
    return Windows::strided(window, options.stride);
}

std::size_t count_windows(const Options& options, const Windows& windows, std::size_t tokens) {
    const std::size_t count = windows.count(tokens);
    if (count == 0)
        throw Error(ErrorCode::invalid_request,
                    {.file = options.source.name(),
                     .expected = "at least the " + std::to_string(windows.window) + " tokens of one window",
                     .found = std::to_string(tokens),
                     .next_step = "Lower -c or take a longer text."});
    return options.chunks > 0 ? std::min<std::size_t>(count, static_cast<std::size_t>(options.chunks))
                              : count;
}

/// Scores one window after the other.
class Scorer {
  public:
    /// Gives the session at most `chunk` tokens at a time.
    Scorer(const ReferenceText& text, Session& session, int chunk, ReferenceWriter* writer,
           ReferenceFile* reference)
        : sums(text.windows),
          text_(text),
          session_(session),
          chunk_(static_cast<std::size_t>(chunk)),
          writer_(writer),
          reference_(reference) {}

    /// Scores the next window; false if interrupted, and then it does not count.
    bool score(Progress& progress) {
        const Windows& windows = text_.windows;
        const std::size_t index = sums.nll.windows();
        const auto tokens =
            text_.tokens.subspan(windows.begin(index), static_cast<std::size_t>(windows.window));
        Ids ids(tokens.begin(), tokens.end());
        if (text_.beginning >= 0) ids[0] = text_.beginning;
        session_.reset();
        totals_ = {};
        const auto rows = ids.size() - 1;  // the last token is only predicted
        const auto silent = static_cast<std::size_t>(windows.skip) - 1;
        for (std::size_t at = 0; at < rows;) {
            if (interrupted()) return false;
            const std::size_t end = at < silent ? silent : rows;
            const std::size_t count = std::min(end - at, chunk_);
            const auto part = std::span<const std::int32_t>(ids).subspan(at, count);
            if (at < silent)
                session_.prefill(part);
            else
                session_.score(part, [&](int row, std::span<const float> logits) {
                    const std::size_t position = at + static_cast<std::size_t>(row);
                    add(index, position - silent, logits, ids[position + 1]);
                });
            at += count;
            progress.update(index * rows + at, running_);
        }
        finish_window();
        return true;
    }

    PerplexitySums sums;

  private:
    struct Totals {
        double nll = 0, kl = 0, same_top = 0, logprob_difference = 0;
    };

    void add(std::size_t window, std::size_t place, std::span<const float> logits, std::int32_t next) {
        const double total = log_sum(logits);
        const double logprob = logits[static_cast<std::size_t>(next)] - total;
        require_finite(logprob, window, place);
        totals_.nll -= logprob;
        if (writer_) writer_->add(logits, total, next);
        if (!reference_) return;
        const std::size_t row = window * static_cast<std::size_t>(text_.windows.counted()) + place;
        const Divergence divergence = reference_->compare(row, logits, total);
        require_finite(divergence.kl, window, place);
        totals_.kl += divergence.kl;
        totals_.same_top += divergence.same_top ? 1 : 0;
        totals_.logprob_difference += logprob - divergence.reference_logprob;
        sums.each_kl.push_back(divergence.kl);
    }

    static void require_finite(double value, std::size_t window, std::size_t place) {
        if (std::isfinite(value)) return;
        throw Error(ErrorCode::internal, {.field = "logits of window " + std::to_string(window) +
                                                   ", counted token " + std::to_string(place),
                                          .found = "no probabilities (NaN or infinity)"});
    }

    void finish_window() {
        sums.nll.add(totals_.nll);
        running_ = "perplexity " + fixed(std::exp(sums.nll.mean()), 4);
        if (!reference_) return;
        sums.kl.add(totals_.kl);
        sums.same_top.add(totals_.same_top);
        sums.logprob_difference.add(totals_.logprob_difference);
        running_ += ", KL " + fixed(sums.kl.mean(), 5);
    }

    const ReferenceText& text_;
    Session& session_;
    std::size_t chunk_;
    ReferenceWriter* writer_;
    ReferenceFile* reference_;
    Totals totals_;
    std::string running_;
};

/// Bits per byte of the counted tokens, if a text was tokenised.
std::optional<double> bits_per_byte(const SourceTokens& tokens, const Windows& windows,
                                    const BlockMean& nll) {
    if (!tokens.tokenizer) return {};
    std::size_t bytes = 0;
    for (std::size_t window = 0; window < nll.windows(); ++window) {
        const std::size_t begin = windows.begin(window);
        for (std::size_t i = begin + static_cast<std::size_t>(windows.skip);
             i < begin + static_cast<std::size_t>(windows.window); ++i)
            bytes += tokens.tokenizer->bytes(tokens.ids[i]).size();
    }
    if (bytes == 0) return {};
    return nll.sum() / std::log(2.0) / static_cast<double>(bytes);
}

void perplexity(const Options& options) {
    const DeviceChoice device = choose_device(options.compute);
    const gguf::File file = open_model_file(options.model);
    const ModelInfo info = describe_model(file);
    const Windows windows = choose_windows(options, info.dims.context);
    const SourceTokens tokens = read_tokens(file, info, options.source);
    const std::size_t count = count_windows(options, windows, tokens.ids.size());
    const ReferenceText text{windows, count, info.dims.vocabulary, tokens.beginning().value_or(-1),
                             std::span(tokens.ids).first(windows.span(count))};
    std::optional<ReferenceFile> reference;
    if (!options.reference.empty()) reference.emplace(options.reference, text);
    std::optional<ReferenceWriter> writer;
    if (!options.save_reference.empty())
        writer.emplace(options.save_reference, text,
                       ReferenceModel{sha256(model_paths(options.model.path)), info.name});
    const std::unique_ptr<Model> model = load_model(file, device);
    require_memory_to_score(*model, windows.window, options.source.name(), "Lower -c.");
    const std::unique_ptr<Session> session = model->session(windows.window - 1);

    catch_interrupt();
    Scorer scorer(text, *session, model->chunk(), writer ? &*writer : nullptr,
                  reference ? &*reference : nullptr);
    PerplexitySums& sums = scorer.sums;
    {
        Progress progress("scoring", count * static_cast<std::size_t>(windows.window - 1));
        while (sums.nll.windows() < count && scorer.score(progress)) continue;
    }
    const bool partial = sums.nll.windows() < count;
    if (sums.nll.windows() == 0)
        throw Error(ErrorCode::cancelled, "interrupted before the first window was complete");
    sums.each_kl.resize(sums.kl.tokens());  // a window that was not completed
    if (partial)
        print_note("interrupted: " + std::to_string(sums.nll.windows()) + " of " + std::to_string(count) +
                   " windows count" + (writer ? "; the reference is not written" : ""));
    if (writer && !partial) writer->commit();
    const PerplexityResult result{windows, tokens.ids.size(), partial,
                                  bits_per_byte(tokens, windows, sums.nll),
                                  reference ? &reference->model() : nullptr};
    if (options.json) return print_json(result_json(sums, result));
    write_output(result_text(sums, result));
}

constexpr const char* footer =
    R"(A window is -c tokens of the text, given to an empty session; its first token gives way to the
beginning-of-text token if the model wants one. Windows follow each other without overlap, and of each the
tokens from number c/2 + 1 (from 0) on count: the second half, the tokens that llama.cpp counts. With
--stride S a window begins every S tokens and its last S count, each with at least c - S tokens before it.
Tokens behind the last whole window do not count.

nll is the mean of -log p, perplexity is exp(nll). Behind +- is the standard error. Neighbouring tokens are
correlated, so that of nll comes from the variance between blocks (a window, or with --stride the windows
that begin within c tokens), and that of perplexity is perplexity times it. With a reference, the errors of
the difference of log p and of the ratio come from differences token by token, so they are much smaller
than those of both perplexities. bits/byte is of the counted text.

KL is sum p log(p / q) over the vocabulary, p the reference's probabilities and q the model's.
The file of --save-reference takes 12 + 2 x vocabulary bytes for each counted token, and appears when it is
complete. --reference wants the same text, -c, --stride and --chunks.

Ctrl-C ends it with the result of the windows that are complete, exit code 0 and "partial": true in JSON;
with exit code 1 if none is. A second one kills at once.)";

}  // namespace

void add_perplexity(CLI::App& app, Action& action) {
    CLI::App* command =
        app.add_subcommand("perplexity", "Measure how well a model predicts a text, with error bars");
    const auto options = std::make_shared<Options>();
    add_model_file_options(*command, options->model);
    add_token_source_options(*command, options->source);
    command->add_option("-c,--context", options->window, "Tokens of a window")
        ->type_name("WINDOW")
        ->default_str("512, or the model's context if that is less")
        ->check(number_range(least_window, 2e9, "3 or more"));
    command->add_option("--stride", options->stride, "Begin a window every S tokens, S less than WINDOW")
        ->type_name("S")
        ->default_str("no overlap")
        ->check(number_range(1, 2e9, "1 or more"));
    command->add_option("--chunks", options->chunks, "Score only the first N windows")
        ->type_name("N")
        ->default_str("all")
        ->check(number_range(1, 2e9, "1 or more"));
    CLI::Option* save = command
                            ->add_option("--save-reference", options->save_reference,
                                         "Keep the probabilities of every counted token in FILE")
                            ->type_name("FILE");
    command
        ->add_option("--reference", options->reference,
                     "Compare with the probabilities that --save-reference kept of another model")
        ->type_name("FILE")
        ->excludes(save);
    add_compute_options(*command, options->compute);
    command->add_flag("--json", options->json, "Print one JSON object");
    command->footer(footer);
    command->callback([options, &action] { action = {[options] { perplexity(*options); }, options->json}; });
}

}  // namespace gg::runner
