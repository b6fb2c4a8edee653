#include "perplexity_result.hpp"

#include "output.hpp"

namespace gg::runner {

namespace {

using nlohmann::ordered_json;

void put(ordered_json& json, const std::string& name, const Estimate& x) {
    json[name] = x.mean;
    json[name + "_standard_error"] = x.standard_error ? ordered_json(*x.standard_error) : ordered_json();
}

std::string line(std::string name, const Estimate& x, int decimals, const char* unit) {
    name.resize(14, ' ');
    return name + fixed(x.mean, decimals) +
           (x.standard_error ? " +- " + fixed(*x.standard_error, decimals) : "") + unit + "\n";
}

/// The ratio of both perplexities, token by token: what makes both hard or easy cancels.
Estimate perplexity_ratio(const PerplexitySums& sums) {
    const Estimate difference = sums.logprob_difference.estimate();
    return exp(Estimate{-difference.mean, difference.standard_error});
}

}  // namespace

ordered_json result_json(PerplexitySums& sums, const PerplexityResult& result) {
    const Windows& windows = result.windows;
    const Estimate nll = sums.nll.estimate();
    ordered_json json{{"tokens", result.tokens},  {"windows", sums.nll.windows()},
                      {"window", windows.window}, {"advance", windows.advance},
                      {"skip", windows.skip},     {"counted", sums.nll.tokens()},
                      {"partial", result.partial}};
    put(json, "nll", nll);
    put(json, "perplexity", exp(nll));
    json["bits_per_byte"] = result.bits_per_byte ? ordered_json(*result.bits_per_byte) : ordered_json();
    if (!result.reference) return json;
    ordered_json reference{{"name", result.reference->name}, {"sha256", result.reference->sha256}};
    put(reference, "kl", sums.kl.estimate());
    reference["kl_median"] = quantile(sums.each_kl, 0.5);
    reference["kl_99_percent"] = quantile(sums.each_kl, 0.99);
    put(reference, "same_top", sums.same_top.estimate());
    put(reference, "logprob_difference", sums.logprob_difference.estimate());
    put(reference, "perplexity_ratio", perplexity_ratio(sums));
    json["reference"] = reference;
    return json;
}

std::string result_text(PerplexitySums& sums, const PerplexityResult& result) {
    const Windows& windows = result.windows;
    const Estimate nll = sums.nll.estimate();
    std::string text = "counted       " + std::to_string(sums.nll.tokens()) + " of " +
                       std::to_string(result.tokens) + " tokens, in " + std::to_string(sums.nll.windows()) +
                       " windows of " + std::to_string(windows.window) + " every " +
                       std::to_string(windows.advance) + (result.partial ? " (interrupted)" : "") + "\n";
    text += line("nll", nll, 6, " per token (mean negative log-likelihood, nats)");
    text += line("perplexity", exp(nll), 4, "");
    if (result.bits_per_byte) text += line("bits/byte", {*result.bits_per_byte, {}}, 4, "");
    if (!result.reference) return text;
    Estimate same = sums.same_top.estimate();
    same.mean *= 100;
    if (same.standard_error) *same.standard_error *= 100;
    text += "reference     " + result.reference->name + " (SHA-256 " + result.reference->sha256 + ")\n";
    text += line("KL mean", sums.kl.estimate(), 6, " nats");
    text += line("KL median", {quantile(sums.each_kl, 0.5), {}}, 6, "");
    text += line("KL 99 %", {quantile(sums.each_kl, 0.99), {}}, 6, "");
    text += line("same top", same, 3, " % of tokens have the same likeliest token");
    text += line("log p", sums.logprob_difference.estimate(), 6, " less the reference's");
    text += line("ratio", perplexity_ratio(sums), 6, " of the perplexities");
    return text;
}

}  // namespace gg::runner
