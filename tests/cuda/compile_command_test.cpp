// The command gg compile: what it prints, keeps and refuses, without a GPU.
#include "catch.hpp"
#include "nlohmann/json.hpp"
#include "nvrtc.hpp"
#include "runner/subprocess.hpp"

using namespace runner_test;
using nlohmann::json;

#if defined(GG_RUNNER)

namespace {

const std::string model = GG_TEST_DATA "/model/gpt2-f32.gguf";

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

}  // namespace

TEST_CASE("gg compile fills the cache and shows the kernels") {
    GG_NEED_NVRTC();
    // The cache that the test of the families fills too.
    const Result first = run_gg({"compile", model, "--arch", "sm_90a", "--json"});
    INFO(first.err);
    REQUIRE(first.code == 0);
    const json result = json::parse(first.out);
    CHECK(result["model"] == model);
    REQUIRE(result["targets"].size() == 1);
    const json& target = result["targets"][0];
    CHECK(target["architecture"] == "sm_90a");
    CHECK(target["multiprocessors"].get<int>() > 0);
    REQUIRE(target["units"].size() > 1);
    for (const json& unit : target["units"]) {
        CHECK(unit["cubin_bytes"].get<int>() > 100);
        REQUIRE_FALSE(unit["kernels"].empty());
        for (const char* number : {"registers", "spill_bytes", "stack_bytes", "shared_bytes"})
            CHECK(unit["kernels"][0][number].get<int>() >= 0);
    }
    const Result second = run_gg({"compile", "-m", model, "--arch", "sm_90a,sm_90a", "--json"});
    REQUIRE(second.code == 0);
    const json again = json::parse(second.out);
    REQUIRE(again["targets"].size() == 1);
    for (const json& unit : again["targets"][0]["units"]) CHECK(unit["cached"] == true);
    const Result text = run_gg({"compile", model, "--arch", "sm_90a"});
    CHECK(text.code == 0);
    CHECK(text.err.empty());
    CHECK(contains(text.out, "sm_90a, " + target["multiprocessors"].dump() + " multiprocessors: 0 of "));
    CHECK(contains(text.out, target["units"][0]["kernels"][0]["name"].get<std::string>()));
}

TEST_CASE("gg compile refuses what it cannot do") {
    CHECK(run_gg({"compile"}).code == 2);
    CHECK(run_gg({"compile", "--help"}).code == 0);
    for (const char* name : {"90a", "sm_", "sm_9", "sm_90A", "sm_90ab", "compute_90", "sm_90a,native", ""}) {
        CAPTURE(name);
        const Result result = run_gg({"compile", model, "--arch", name});
        CHECK(result.code == 2);
        CHECK(result.out.empty());
    }
    CHECK(run_gg({"compile", model, "--arch", "sm_90a", "--multiprocessors", "0"}).code == 2);
    const Result number = run_gg({"compile", model, "--arch", "sm_999"});
    CHECK(number.code == 2);
    CHECK(contains(number.err, "--multiprocessors"));
    const Result missing = run_gg({"compile", "no-such-file.gguf", "--arch", "sm_90a", "--json"});
    CHECK(missing.code == 1);
    CHECK(json::parse(missing.out)["error"]["code"] == "model_load_failed");
    if (!gg::cuda::find_library(gg::cuda::nvrtc_query(), gg::cuda::library_folders()).empty()) {
        const Result unknown =
            run_gg({"compile", model, "--arch", "sm_999", "--multiprocessors", "100", "--json"});
        CHECK(unknown.code == 1);
        const json error = json::parse(unknown.out)["error"];
        CHECK(error["code"] == "cuda_error");
        CHECK(contains(error["message"].get<std::string>(), "sm_999"));
    }
}

#endif
