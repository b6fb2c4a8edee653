// A family that the library does not have, composed from its blocks and one policy of its own, against its
// golden. Read tests/cuda/parallel_composition.hpp and parallel_family.hpp to add a family: a policy where
// attention differs, the layer type, and a struct that names them.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cuda/parallel_family.hpp"
#include "gg/gguf/file.hpp"
#include "gg/host/model.hpp"

namespace {

using parallel::QkNorm;
using ParallelQkNorm = parallel::QkNormFamily;

const std::string golden_path = std::string(GG_TEST_DATA) + "/model/parallel-qknorm";

/// log p(tokens[i + 1] | tokens[..i]) by a family on the host.
template <class Family>
std::vector<double> log_probabilities(const std::vector<std::int32_t>& tokens,
                                      gg::host::InstructionSet set = gg::host::best_instruction_set()) {
    const gg::gguf::File file = gg::gguf::File::open(golden_path + ".gguf");
    const gg::host::HostModel<Family> model(file, {.threads = 2}, set);
    std::vector<double> result;
    model.session(static_cast<int>(tokens.size()))
        ->score(tokens, [&](int row, std::span<const float> logits) {
            const auto next = static_cast<std::size_t>(row) + 1;
            if (next == tokens.size()) return;
            const double largest = *std::max_element(logits.begin(), logits.end());
            double total = 0.0;
            for (const float logit : logits) total += std::exp(logit - largest);
            result.push_back(logits[static_cast<std::size_t>(tokens[next])] - largest - std::log(total));
        });
    return result;
}

struct Difference {
    double median, largest;
};

struct Golden {
    std::vector<std::int32_t> tokens;
    std::vector<double> logprob;

    static Golden read() {
        const auto json = nlohmann::json::parse(std::ifstream(golden_path + ".json"));
        return {json.at("tokens"), json.at("logprob")};
    }

    Difference from(const std::vector<double>& got) const {
        REQUIRE(got.size() == logprob.size());
        std::vector<double> d;
        for (std::size_t i = 0; i < got.size(); ++i) d.push_back(std::fabs(got[i] - logprob[i]));
        std::sort(d.begin(), d.end());
        REQUIRE_FALSE(std::isnan(d.back()));
        return {d[d.size() / 2], d.back()};
    }
};

// The same tensors, composed wrongly.
struct NamedOnly : QkNorm {  // has the norms' tensors and does not apply them
    template <class Weights, class Dims>
    static void transform(const Weights&, const Dims&, const gg::HeadPlace&, float*) {}
};
struct SwappedGains : QkNorm {  // takes the queries' gain for keys
    template <class Weights, class Dims>
    static void transform(const Weights& w, const Dims& dims, gg::HeadPlace head, float* x) {
        head.is_key = !head.is_key;
        QkNorm::transform(w, dims, head, x);
    }
};

}  // namespace

TEST_CASE("a family composed outside the library equals its float64 golden") {
    const Golden golden = Golden::read();
    for (const auto set : {gg::host::InstructionSet::portable, gg::host::best_instruction_set()}) {
        const Difference difference = golden.from(log_probabilities<ParallelQkNorm>(golden.tokens, set));
        INFO("median " << difference.median << ", largest " << difference.largest);
        CHECK(difference.median <= 2.5e-6);
        CHECK(difference.largest <= 2.5e-5);
    }
}

TEST_CASE("the golden notices every wrong composition of the family") {
    const Golden golden = Golden::read();
    const auto check = [&](const char* name, const std::vector<double>& got) {
        const Difference difference = golden.from(got);
        INFO(name << ": median " << difference.median << ", largest " << difference.largest);
        CHECK(difference.median > 100 * 1e-5);
        CHECK(difference.largest > 100 * 1e-4);
    };
    check("adjacent pairs", log_probabilities<parallel::Family<QkNorm, gg::Rope>>(golden.tokens));
    check("no rotary embedding", log_probabilities<parallel::Family<QkNorm>>(golden.tokens));
    check("no norms", log_probabilities<parallel::Family<NamedOnly, gg::HalfSplitRope>>(golden.tokens));
    check("norms after the rotary embedding",
          log_probabilities<parallel::Family<gg::HalfSplitRope, QkNorm>>(golden.tokens));
    check("gains swapped",
          log_probabilities<parallel::Family<SwappedGains, gg::HalfSplitRope>>(golden.tokens));
}

TEST_CASE("a composition that does not fit the file's tensors is refused, and they are named") {
    const gg::gguf::File file = gg::gguf::File::open(golden_path + ".gguf");
    const auto refusal = [&](auto family) -> std::string {
        try {
            gg::host::HostModel<decltype(family)>(file, {.threads = 1}, gg::host::best_instruction_set());
        } catch (const gg::Error& error) {
            CHECK(error.code() == gg::ErrorCode::model_load_failed);
            return error.mismatch().found;
        }
        return "nothing refused";
    };
    CHECK(refusal(parallel::Family<gg::HalfSplitRope>{}) ==
          "4 surplus: blk.0.attn_q_norm.weight, blk.0.attn_k_norm.weight, blk.1.attn_q_norm.weight, "
          "blk.1.attn_k_norm.weight");
    CHECK(refusal(parallel::Family<QkNorm, gg::HalfSplitRope, gg::Sinks>{}) ==
          "2 missing: blk.0.attn_sinks.weight, blk.1.attn_sinks.weight");
}
