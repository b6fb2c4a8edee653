// The host against the float64 goldens: every model of tests/data/model, every instruction set.
#include "golden.hpp"

#include <cstdio>
#include <set>

#include "catch.hpp"
#include "gg/host/load.hpp"

using namespace host_test;
using gg::host::InstructionSet;

std::unique_ptr<gg::Model> host_test::load(const gg::gguf::File& file, int threads) {
    return gg::host::load_model(file, {.threads = threads});
}

namespace {

std::unique_ptr<gg::Model> load(const gg::gguf::File& file, InstructionSet set) {
    return gg::with_family(file, [&](auto family) -> std::unique_ptr<gg::Model> {
        return std::make_unique<gg::host::HostModel<decltype(family)>>(file, gg::LoadOptions{.threads = 2},
                                                                       set);
    });
}

/// The names of all files with an extension.
std::set<std::string> names(const std::string& extension) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(golden_folder()))
        if (entry.path().extension() == extension) names.insert(entry.path().stem().string());
    return names;
}

/// Those whose architecture the library has.
std::set<std::string> known_names() {
    std::set<std::string> known = names(".gguf");
    known.erase("parallel-qknorm");
    return known;
}

bool is_long(const std::string& name) {
    return name.find("-long") != name.npos;
}

void check_golden(const std::string& name, InstructionSet set) {
    const Golden golden = read_golden(name);
    const auto file = gg::gguf::File::open(golden_model(name));
    CHECK(file.get<std::string_view>("general.architecture") == golden.family);
    const Comparison found = compare(*load(file, set), golden);
    std::printf("%-16s %-9s next: median %.1e max %.1e   rows: median %.1e max %.1e\n", name.c_str(),
                gg::host::to_string(set), found.next.median(), found.next.max(), found.rows.median(),
                found.rows.max());
    CAPTURE(name, gg::host::to_string(set), found.next.median(), found.next.max(), found.rows.median(),
            found.rows.max());
    CHECK(found.next.count() == golden.tokens.size() - 1);
    CHECK(found.next.median() <= median_bound);
    CHECK(found.next.max() <= max_bound);
    if (is_long(name)) return;
    const auto vocabulary = file.require_tensor("token_embd.weight").shape[1];
    CHECK(found.rows.count() == 2 * vocabulary);
    CHECK(found.rows.median() <= median_bound);
    CHECK(found.rows.max() <= max_bound);
}

bool has(InstructionSet set) {
    return static_cast<int>(set) <= static_cast<int>(gg::host::best_instruction_set());
}

}  // namespace

TEST_CASE("the goldens are complete") {
    const std::set<std::string> expected = {
        "gpt-oss-320",  "gpt-oss-experts", "gpt-oss-f32",  "gpt-oss-half",   "gpt-oss-k",
        "gpt-oss-long", "gpt-oss-mxfp4",   "gpt-oss-text", "gpt-oss-window", "gpt2-blocks",
        "gpt2-f32",     "gpt2-half",       "gpt2-k",       "llama-320",      "llama-f32",
        "llama-half",   "llama-k",         "llama-long",   "llama-text",     "parallel-qknorm",
    };
    const std::set<std::string> models = names(".gguf");
    CHECK(std::includes(models.begin(), models.end(), expected.begin(), expected.end()));
    CHECK(models == names(".json"));
}

TEST_CASE("log-probabilities equal the goldens: portable") {
    for (const std::string& name : known_names()) check_golden(name, InstructionSet::portable);
}

TEST_CASE("log-probabilities equal the goldens: AVX2") {
    if (!has(InstructionSet::avx2)) GG_SKIP("this processor has no AVX2");
    for (const std::string& name : known_names()) check_golden(name, InstructionSet::avx2);
}

TEST_CASE("log-probabilities equal the goldens: AVX-512") {
    if (!has(InstructionSet::avx512)) GG_SKIP("this processor has no AVX-512");
    for (const std::string& name : known_names()) check_golden(name, InstructionSet::avx512);
}

TEST_CASE("AVX2 and AVX-512 give the same bits") {
    if (!has(InstructionSet::avx512)) GG_SKIP("this processor has no AVX-512");
    for (const std::string& name : known_names()) {
        if (is_long(name)) continue;
        const auto file = gg::gguf::File::open(golden_model(name));
        const std::vector<std::int32_t> tokens = read_golden(name).tokens;
        std::vector<std::vector<float>> logits;
        for (const InstructionSet set : {InstructionSet::avx2, InstructionSet::avx512}) {
            const auto model = load(file, set);
            std::vector<float>& all = logits.emplace_back();
            model->session(static_cast<int>(tokens.size()))
                ->score(tokens, [&](int, std::span<const float> row) {
                    all.insert(all.end(), row.begin(), row.end());
                });
        }
        CAPTURE(name);
        REQUIRE(logits[0].size() == logits[1].size());
        CHECK(std::memcmp(logits[0].data(), logits[1].data(), logits[0].size() * sizeof(float)) == 0);
    }
}

TEST_CASE("load_model takes the best instruction set") {
    const ModelBytes bytes("llama-f32");
    const auto model = host_test::load(bytes.file(), 3);
    CHECK(model->device() ==
          std::string("host, 3 threads, ") + gg::host::to_string(gg::host::best_instruction_set()));
    CHECK(model->info().family == "llama");
    CHECK(model->info().name == "llama-f32");
}
