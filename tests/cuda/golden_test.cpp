// The GPU against the float64 goldens: every model of tests/data/model, read in as a prompt, in pieces that
// the fused stages take, and token by token.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>

#include "cuda/model.hpp"
#include "gg/cuda/load.hpp"

using namespace cuda_test;
using host_test::Golden;

std::unique_ptr<gg::Model> cuda_test::load(const gg::gguf::File& file, gg::cuda::LoadOptions options) {
    options.headers = gg::cuda::device_headers();
    return gg::cuda::load_model(file, options);
}

std::unique_ptr<gg::Model> cuda_test::load(const gg::gguf::File& file, gg::cuda::Launches launches,
                                           const std::vector<std::string>& compile_options,
                                           const gg::SyntheticFile* synthetic, gg::cuda::StageLog* log) {
    gg::cuda::LoadOptions options;
    options.synthetic = synthetic;
    options.launches = launches;
    options.compile_options = compile_options;
    options.stage_log = log;
    return load(file, std::move(options));
}

namespace {

/// Activations, keys and values have 11 significant bits: what that may cost a model, as a median over all
/// log-probabilities that are compared.
constexpr double median_bound = 1e-3;
/// Where the two likeliest tokens are closer, either may come first.
constexpr double decided = 0.02;
/// Where the router's choice is closer, rounding may choose another expert.
constexpr double router_decided = 1e-3;

std::set<std::string> model_names() {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(host_test::golden_folder()))
        if (entry.path().extension() == ".gguf") names.insert(entry.path().stem().string());
    names.erase("parallel-qknorm");  // has a test of its own
    return names;
}

/// The router's gap at each position; empty for a model without one.
std::vector<double> router_gaps(const std::string& name) {
    std::ifstream in(host_test::golden_folder() / (name + ".json"));
    return nlohmann::json::parse(in).value("router_gap", std::vector<double>());
}

struct Result {
    host_test::Differences all, next, rows;
    int undecided = 0;  ///< positions not compared, for a close router
    int compared = 0, wrong = 0;
};

Result compare(const std::string& name, const Golden& golden, const Logits& logits) {
    const std::vector<double> gaps = router_gaps(name);
    Result result;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        if (i < gaps.size() && gaps[i] < router_decided) {
            ++result.undecided;
            continue;
        }
        if (logits[i].empty()) continue;
        const std::vector<double> found = log_probabilities(logits[i]);
        if (i + 1 < golden.tokens.size()) {
            const double logprob = found[static_cast<std::size_t>(golden.tokens[i + 1])];
            result.next.add(logprob, golden.logprob[i]);
            result.all.add(logprob, golden.logprob[i]);
        }
        for (const Golden::Row& row : golden.rows) {
            if (static_cast<std::size_t>(row.position) != i) continue;
            for (std::size_t k = 0; k < found.size(); ++k) {
                result.rows.add(found[k], row.logprob[k]);
                result.all.add(found[k], row.logprob[k]);
            }
            if (lead(row.logprob) < decided) continue;
            ++result.compared;
            result.wrong += largest(found) != largest(row.logprob);
        }
    }
    return result;
}

void check(const std::string& name, const char* how, const Golden& golden, const Logits& logits) {
    const Result found = compare(name, golden, logits);
    std::printf(
        "%-16s %-7s median %.1e   next: median %.1e max %.1e   rows: median %.1e max %.1e   undecided %d of "
        "%zu\n",
        name.c_str(), how, found.all.median(), found.next.median(), found.next.max(), found.rows.median(),
        found.rows.max(), found.undecided, logits.size());
    CAPTURE(name, how, found.all.median(), found.next.median(), found.next.max(), found.rows.median(),
            found.rows.max());
    CHECK(logits.size() == golden.tokens.size());
    CHECK(found.next.count() > 0);
    CHECK(found.all.median() <= median_bound);
    CHECK(found.wrong == 0);
}

/// Appends tokens in pieces of one size; the logits after each. Where tests are brief, all but the last
/// `brief` tokens are scored instead, with logits after every one.
Logits decode(gg::Session& session, std::span<const std::int32_t> tokens, std::size_t piece,
              std::size_t brief) {
    const std::size_t scored = is_brief() ? tokens.size() - std::min(tokens.size(), brief) : 0;
    Logits all;
    if (scored > 0) all = score(session, tokens.first(scored));
    for (std::size_t at = scored, count = 0; at < tokens.size(); at += count) {
        count = std::min(piece, tokens.size() - at);
        session.prefill(tokens.subspan(at, count));
        const auto row = session.logits();
        all.resize(at + count);
        all.back().assign(row.begin(), row.end());
    }
    return all;
}

/// Thousands of steps: the long models have a test of their own.
void check_token_by_token(bool are_long) {
    for (const std::string& name : model_names()) {
        const Golden golden = host_test::read_golden(name);
        if ((golden.tokens.size() > 1000) != are_long) continue;
        const auto file = gg::gguf::File::open(host_test::golden_model(name));
        const auto model = cuda_test::load(file);
        const auto session = model->session(static_cast<int>(golden.tokens.size()));
        check(name, "tokens", golden, decode(*session, golden.tokens, 1, 4));
    }
}

}  // namespace

TEST_CASE("log-probabilities equal the goldens when a prompt is read in") {
    GG_NEED_GPU();
    for (const std::string& name : model_names()) {
        const Golden golden = host_test::read_golden(name);
        const auto file = gg::gguf::File::open(host_test::golden_model(name));
        const auto model = cuda_test::load(file);
        const auto session = model->session(static_cast<int>(golden.tokens.size()));
        check(name, "prompt", golden, score(*session, golden.tokens));
    }
}

TEST_CASE("log-probabilities equal the goldens token by token") {
    GG_NEED_GPU();
    check_token_by_token(false);
}

TEST_CASE("log-probabilities equal the long goldens token by token") {
    GG_NEED_GPU();
    check_token_by_token(true);
}

TEST_CASE("eight tokens at once equal eight tokens one by one") {
    GG_NEED_GPU();
    for (const std::string& name : model_names()) {
        const std::vector<std::int32_t> all = host_test::read_golden(name).tokens;
        const auto count = std::min<std::size_t>(static_cast<std::size_t>(repeats(200, 9)), all.size());
        const auto tokens = std::span(all).first(count);
        const auto file = gg::gguf::File::open(host_test::golden_model(name));
        const auto model = cuda_test::load(file);
        const auto whole = model->session(static_cast<int>(tokens.size()));
        const Logits expected = score(*whole, tokens);
        for (const std::size_t piece : {1, 2, 5, 8, 9, 33}) {
            const auto session = model->session(static_cast<int>(tokens.size()));
            const Logits found = decode(*session, tokens, piece, piece);
            Logits a, b;
            for (std::size_t i = 0; i < found.size(); ++i) {
                if (found[i].empty()) continue;
                a.push_back(expected[i]);
                b.push_back(found[i]);
            }
            const host_test::Differences difference = differences(a, b);
            CAPTURE(name, piece, difference.median(), difference.max());
            CHECK(difference.median() <= median_bound);
        }
    }
}
