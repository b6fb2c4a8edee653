// gg perplexity against gg score's numbers, its reference files, and what it refuses.
#include <cmath>

#include "catch.hpp"
#include "nlohmann/json.hpp"
#include "subprocess.hpp"
#include "tiny_model.hpp"

using namespace runner_test;
using nlohmann::json;

namespace {

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

std::string prose(std::size_t bytes) {
    std::string text;
    for (unsigned state = 7; text.size() < bytes; state = state * 1664525u + 1013904223u)
        text += "he hey they said the there where when then "[state >> 24 & 31];
    return text;
}

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

struct Model {
    gguf_test::TemporaryFolder folder;
    std::string path = folder / "tiny.gguf";
    std::string text = folder / "text";

    explicit Model(const TinyModel& model = {}, std::size_t bytes = 1500) {
        model.write(path);
        write_file(text, prose(bytes));
    }
    std::vector<std::string> arguments(const std::vector<std::string>& more) const {
        return std::vector<std::string>{"perplexity", "-m", path, "--text-file", text, "--json"} + more;
    }
    json measure(const std::vector<std::string>& more) const {
        const Result result = run_gg(arguments(more));
        CAPTURE(result.err);
        REQUIRE(result.code == 0);
        return json::parse(result.out);
    }
    void refused(const std::vector<std::string>& more, const char* reason) const {
        const Result result = run_gg(arguments(more));
        CAPTURE(more, result.err);
        CHECK(result.code == 1);
        CHECK(contains(json::parse(result.out)["error"]["message"].get<std::string>(), reason));
    }
    std::vector<std::int32_t> ids() const {
        const Result result = run_gg({"tokenize", "-m", path, "--file", text, "--json"});
        REQUIRE(result.code == 0);
        return json::parse(result.out).get<std::vector<std::int32_t>>();
    }
    /// Log-probabilities of the tokens behind the first, from gg score.
    std::vector<double> score(const std::vector<std::int32_t>& ids) const {
        std::string input;
        for (const std::int32_t id : ids) input += std::to_string(id) + " ";
        const Result result = run_gg({"score", "-m", path, "--tokens-file", "-", "--json"}, input);
        REQUIRE(result.code == 0);
        return json::parse(result.out)["logprob"].get<std::vector<double>>();
    }
};

/// The mean by windows each scored on its own by gg score.
double mean_by_score(const Model& m, std::vector<std::int32_t> ids, std::size_t window, std::size_t advance,
                     std::size_t skip, std::int32_t beginning = -1) {
    double sum = 0, count = 0;
    for (std::size_t at = 0; at + window <= ids.size(); at += advance) {
        std::vector<std::int32_t> part(ids.begin() + static_cast<std::ptrdiff_t>(at),
                                       ids.begin() + static_cast<std::ptrdiff_t>(at + window));
        if (beginning >= 0) part[0] = beginning;
        const std::vector<double> logprob = m.score(part);
        for (std::size_t i = skip; i < window; ++i, ++count) sum -= logprob[i - 1];
    }
    return sum / count;
}

}  // namespace

TEST_CASE("gg perplexity is the mean of gg score over windows") {
    const Model m;
    const std::vector<std::int32_t> ids = m.ids();
    const json whole = m.measure({"-c", "300"});
    const std::size_t windows = ids.size() / 300;
    REQUIRE(windows >= 3);
    CHECK(whole["tokens"] == ids.size());
    CHECK(whole["windows"] == windows);
    CHECK(whole["window"] == 300);
    CHECK(whole["skip"] == 151);
    CHECK(whole["counted"] == windows * 149);
    CHECK(whole["partial"] == false);
    const double nll = whole["nll"].get<double>();
    CHECK(nll == Approx(mean_by_score(m, ids, 300, 300, 151)).epsilon(1e-13));
    CHECK(whole["perplexity"].get<double>() == Approx(std::exp(nll)).epsilon(1e-14));
    CHECK(whole["perplexity_standard_error"].get<double>() ==
          Approx(std::exp(nll) * whole["nll_standard_error"].get<double>()).epsilon(1e-14));

    const json strided = m.measure({"-c", "300", "--stride", "170"});
    CHECK(strided["counted"] == ((ids.size() - 300) / 170 + 1) * 170);
    CHECK(strided["nll"].get<double>() == Approx(mean_by_score(m, ids, 300, 170, 130)).epsilon(1e-13));
    CHECK(m.measure({"-c", "300", "--threads", "1"}) == whole);

    const json first = m.measure({"-c", "300", "--chunks", "1"});
    CHECK(first["windows"] == 1);
    CHECK(first["nll_standard_error"].is_null());
    CHECK(m.measure({})["window"] == 512);
}

TEST_CASE("gg perplexity begins windows with the beginning-of-text token if the model wants one") {
    const Model m(TinyModel{.context = 100, .adds_bos = true}, 700);
    std::vector<std::int32_t> ids = m.ids();
    ids.insert(ids.begin(), 258);
    const json result = m.measure({});
    CHECK(result["window"] == 100);
    CHECK(result["tokens"] == ids.size());
    CHECK(result["nll"].get<double>() == Approx(mean_by_score(m, ids, 100, 100, 51, 258)).epsilon(1e-13));
}

TEST_CASE("gg perplexity gives bits per byte of a text") {
    // Tokens of one byte each: 258 ids without merges in a text without "he".
    const Model m(TinyModel{.context = 64});
    write_file(m.text, std::string(500, 'a') + std::string(500, 'b'));
    const json result = m.measure({});
    CHECK(result["bits_per_byte"].get<double>() ==
          Approx(result["nll"].get<double>() / std::log(2.0)).epsilon(1e-14));
    write_file(m.folder / "ids", "1 2 3 4 5 6 7 8");
    const Result ids =
        run_gg({"perplexity", "-m", m.path, "--tokens-file", m.folder / "ids", "-c", "4", "--json"});
    CHECK(json::parse(ids.out)["bits_per_byte"].is_null());
    CHECK(json::parse(ids.out)["counted"] == 2);
}

TEST_CASE("gg perplexity compares a model with itself") {
    const Model m(TinyModel{.context = 128});
    const std::string reference = m.folder / "reference";
    for (const std::vector<std::string>& windows :
         std::vector<std::vector<std::string>>{{}, {"-c", "60", "--stride", "40"}, {"--chunks", "3"}}) {
        CAPTURE(windows);
        const json alone = m.measure(windows + std::vector<std::string>{"--save-reference", reference});
        CHECK_FALSE(alone.contains("reference"));
        json same = m.measure(windows + std::vector<std::string>{"--reference", reference});
        const json difference = same["reference"];
        CHECK(difference["name"] == "tiny");
        CHECK(difference["sha256"].get<std::string>().size() == 64);
        for (const char* kl : {"kl", "kl_median", "kl_99_percent"})
            CHECK(std::fabs(difference[kl].get<double>()) < 2e-8);
        CHECK(difference["same_top"] == 1.0);
        CHECK(difference["logprob_difference"] == 0.0);
        CHECK(difference["perplexity_ratio"] == 1.0);
        CHECK(difference["perplexity_ratio_standard_error"] == 0.0);
        same.erase("reference");
        CHECK(same == alone);
    }
}

TEST_CASE("gg perplexity compares different models of one vocabulary, token by token") {
    gguf_test::TemporaryFolder folder;
    const std::string data = std::string(GG_TEST_DATA) + "/model/";
    std::string ids;
    for (int i = 0; i < 600; ++i) ids += std::to_string(i * i % 90) + " ";
    write_file(folder / "ids", ids);
    const auto run = [&](const char* model, const char* option) {
        return run_gg({"perplexity", "-m", data + model, "--tokens-file", folder / "ids", "-c", "20",
                       "--json", option, folder / "reference"});
    };
    const json first = json::parse(run("llama-f32.gguf", "--save-reference").out);
    const json second = json::parse(run("gpt-oss-f32.gguf", "--reference").out);
    const json difference = second["reference"];
    const double gap = second["nll"].get<double>() - first["nll"].get<double>();
    CHECK(difference["logprob_difference"].get<double>() == Approx(-gap).epsilon(1e-12));
    CHECK(difference["perplexity_ratio"].get<double>() == Approx(std::exp(gap)).epsilon(1e-12));
    CHECK(difference["kl"].get<double>() > 0);
    CHECK(difference["kl_99_percent"].get<double>() > difference["kl_median"].get<double>());
    CHECK(difference["same_top"].get<double>() < 1);
    const Result other = run("llama-half.gguf", "--reference");
    CHECK(other.code == 1);
    CHECK(contains(other.err, (folder / "reference").string()));
    CHECK(contains(other.err, "vocabulary: expected 999, found 97"));
}

TEST_CASE("gg perplexity refuses what it cannot measure") {
    const Model m(TinyModel{.context = 128}, 700);
    m.refused({"-c", "129"}, "-c: expected 3 to the model's context of 128, found 129");
    m.refused({"-c", "64", "--stride", "64"}, "--stride: expected less than the window of 64, found 64");
    m.refused({"--reference", m.folder / "missing"}, "missing");
    m.refused({"--reference", m.text}, "magic: expected gg-refer");
    m.refused({"--save-reference", m.folder / "none" / "reference"}, "none");
    const std::string reference = m.folder / "reference";
    m.measure({"--save-reference", reference});
    m.refused({"-c", "64", "--reference", reference}, "window: expected 64, found 128");
    m.refused({"-c", "128", "--stride", "10", "--reference", reference}, "advance: expected 10, found 128");
    m.refused({"--chunks", "2", "--reference", reference}, "windows: expected 2, found");
    const std::string bytes = read_file(reference);
    write_file(m.folder / "cut", std::string_view(bytes).substr(0, bytes.size() - 1));
    m.refused({"--reference", m.folder / "cut"}, "file size: expected");
    std::string text = read_file(m.text);
    text[100] = text[100] == 'z' ? 'y' : 'z';
    write_file(m.text, text);
    m.refused({"--reference", reference}, "token number");
    write_file(m.text, "short");
    m.refused({}, "expected at least the 128 tokens of one window, found");
}

TEST_CASE("Ctrl-C ends gg perplexity with the windows that are complete") {
    const Model m(TinyModel{.context = 64}, 3000000);
    const std::string reference = m.folder / "reference";
    Child child(m.arguments({"--save-reference", reference}));
    REQUIRE(Child::wait_until([&] { return contains(child.err(), "scoring"); }));
    child.signal(SIGINT);
    const Result result = child.wait();
    CHECK(result.code == 0);
    CHECK(contains(result.err, "the reference is not written"));
    CHECK_FALSE(std::filesystem::exists(reference));
    const json partial = json::parse(result.out);
    CHECK(partial["partial"] == true);
    CHECK(partial["windows"].get<int>() > 0);
    const json same = m.measure({"--chunks", partial["windows"].dump()});
    CHECK(same["nll"] == partial["nll"]);
}
