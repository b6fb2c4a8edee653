// How fast does the host backend read a prompt and decode? Prints one JSON object: tokens a second of each,
// and the ids decoded greedily.
//
// gg-bench-host_model MODEL TOKENS_FILE THREADS DECODE_PROMPT DECODE CONTEXT
//   TOKENS_FILE holds the prompt's ids, separated by blanks; decoding starts after its first DECODE_PROMPT
//   ids.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "gg/core/error.hpp"
#include "gg/gguf/file.hpp"
#include "gg/host/load.hpp"
#include "gg/model/session.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using Tokens = std::span<const std::int32_t>;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

std::int32_t best(std::span<const float> logits) {
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::int32_t best_after(gg::Session& session, Tokens tokens) {
    session.prefill(tokens);
    return best(session.logits());
}

/// Tokens a second of reading the prompt in one call, with the logits of its last token.
double prefill(gg::Session& session, Tokens prompt) {
    session.reset();
    const auto start = Clock::now();
    best_after(session, prompt);
    return static_cast<double>(prompt.size()) / seconds_since(start);
}

/// Tokens a second of greedy decoding after the prompt; `ids` are the tokens, the first one the prompt's.
double decode(gg::Session& session, Tokens prompt, int count, std::vector<std::int32_t>& ids) {
    session.reset();
    ids.assign(1, best_after(session, prompt));
    const auto start = Clock::now();
    for (int i = 0; i < count; ++i) ids.push_back(best_after(session, Tokens(&ids.back(), 1)));
    return count / seconds_since(start);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 7) {
        std::fprintf(stderr, "usage: %s MODEL TOKENS_FILE THREADS DECODE_PROMPT DECODE CONTEXT\n", argv[0]);
        return 2;
    }
    try {
        std::ifstream in(argv[2]);
        const std::vector<std::int32_t> prompt{std::istream_iterator<std::int32_t>(in), {}};
        const auto short_length = std::min<std::size_t>(std::strtoul(argv[4], nullptr, 10), prompt.size());
        const int count = std::atoi(argv[5]);
        const gg::gguf::File file = gg::gguf::File::open(argv[1]);
        const std::unique_ptr<gg::Model> model = gg::host::load_model(file, {.threads = std::atoi(argv[3])});
        const std::unique_ptr<gg::Session> session = model->session(std::atoi(argv[6]));
        const Tokens short_prompt = Tokens(prompt).first(short_length);

        std::vector<std::int32_t> ids;
        prefill(*session, prompt);
        const double prefill_speed = prefill(*session, prompt);
        decode(*session, short_prompt, count / 8, ids);
        const double decode_speed = decode(*session, short_prompt, count, ids);
        std::printf("{\"prefill\": %.3f, \"decode\": %.3f, \"ids\": [", prefill_speed, decode_speed);
        for (std::size_t i = 0; i < ids.size(); ++i) std::printf(i ? ", %d" : "%d", ids[i]);
        std::printf("]}\n");
    } catch (const gg::Error& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
