#include "catch.hpp"
#include "nlohmann/json.hpp"
#include "subprocess.hpp"
#include "tiny_model.hpp"

using namespace runner_test;
using nlohmann::json;

TEST_CASE("gg info describes a model") {
    gguf_test::TemporaryFolder folder;
    const std::string path = folder / "tiny.gguf";
    const TinyModel model{.context = 4096, .adds_bos = true, .chat_template = "<|im_start|>"};
    model.write(path);
    const Result result = run_gg({"info", path, "--json"});
    REQUIRE(result.code == 0);
    CHECK(result.err.empty());
    const json info = json::parse(result.out);
    CHECK(info["file"] == path);
    CHECK(info["bytes"] == std::filesystem::file_size(path));
    CHECK(info["parts"] == 1);
    CHECK(info["gguf_version"] == 3);
    CHECK(info["family"] == "llama");
    CHECK(info["name"] == "tiny");
    CHECK(info["problem"].is_null());
    CHECK_FALSE(info.contains("sha256"));
    const json dims = {
        {"layers", 1},    {"hidden", 32},       {"heads", 2},      {"kv_heads", 1},
        {"head_dim", 16}, {"feed_forward", 64}, {"context", 4096}, {"vocabulary", model.rows()},
        {"window", 0}};
    CHECK(info["dims"] == dims);
    const int parameters = 2 * 32 * model.rows() + 3 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64;
    CHECK(info["parameters"] == parameters);
    CHECK(info["weight_bytes"] == 4 * parameters);
    CHECK(info["tensors"] == json::array({{{"type", "F32"}, {"tensors", 12}, {"bytes", 4 * parameters}}}));
    CHECK(info["tokenizer"]["model"] == "gpt2");
    CHECK(info["tokenizer"]["pre_tokenizer"] == "gpt-2");
    CHECK(info["tokenizer"]["tokens"] == 261);
    CHECK(info["tokenizer"]["bos"] == 258);
    CHECK(info["tokenizer"]["adds_bos"] == true);
    CHECK(info["tokenizer"]["chat"] == "chatml");
    // Keys and values of 16 floats a position.
    REQUIRE(info["memory"].size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
        const json& row = info["memory"][i];
        const int context = i == 0 ? 2048 : 4096;
        CHECK(row["context"] == context);
        CHECK(row["cache_bytes"] == context * 128);
        // At least two rows of the residual for each token of a chunk.
        CHECK(row["workspace_bytes"] > 256 * 2 * 32 * 4);
        CHECK(row["workspace_bytes"] < 4 << 20);
        CHECK(row["total_bytes"] ==
              4 * parameters + context * 128 + row["workspace_bytes"].get<std::uint64_t>());
    }
    // The embedding and three norms stay, matrices are rounded.
    const int kept = 32 * model.rows() + 3 * 32;
    const json gpu_weights = {
        {{"type", "F32"}, {"used", "F32"}, {"tensors", 4}, {"bytes", 4 * kept}},
        {{"type", "F32"}, {"used", "F16"}, {"tensors", 8}, {"bytes", 4 * (parameters - kept)}}};
    CHECK(info["gpu_weights"] == gpu_weights);
    const Result text = run_gg({"info", path});
    CHECK(text.code == 0);
    CHECK(text.out.find("weights on a GPU") != std::string::npos);
    CHECK(text.out.find("  F32 F16       8 tensors") != std::string::npos);
    CHECK(text.out.find("llama") != std::string::npos);
    CHECK(run_gg({"info", "-m", path}).out == text.out);
}

TEST_CASE("gg info describes what gg cannot run") {
    gguf_test::TemporaryFolder folder;
    const std::string path = folder / "m.gguf";
    SECTION("a vocabulary only") {
        TinyModel{.tensors = false}.write(path);
        const json info = json::parse(run_gg({"info", path, "--json"}).out);
        CHECK(info["tokenizer"]["tokens"] == 261);
        CHECK(info["parameters"] == 0);
        CHECK(info["dims"].is_null());
        CHECK(info["problem"].get<std::string>().find("vocabulary only") != std::string::npos);
    }
    SECTION("another architecture") {
        TinyModel{.architecture = "mamba"}.write(path);
        const json info = json::parse(run_gg({"info", path, "--json"}).out);
        CHECK(info["family"] == "mamba");
        CHECK(info["tensors"][0]["tensors"] == 12);
        CHECK(info["dims"].is_null());
        CHECK(info["gpu_weights"].is_null());
        CHECK(info["problem"].get<std::string>().find("mamba") != std::string::npos);
    }
    SECTION("an empty header") {
        gg::gguf::Writer().write(path);
        const json info = json::parse(run_gg({"info", path, "--json"}).out);
        CHECK(info["family"].is_null());
        CHECK(info["tokenizer"].is_null());
    }
    CHECK(run_gg({"info", path}).code == 0);
}

TEST_CASE("gg info reads every model of the test data") {
    int models = 0;
    for (const auto& entry : std::filesystem::directory_iterator(GG_TEST_DATA "/model")) {
        if (entry.path().extension() != ".gguf") continue;
        CAPTURE(entry.path());
        const Result result = run_gg({"info", entry.path(), "--json"});
        REQUIRE(result.code == 0);
        const json info = json::parse(result.out);
        // Files are called after their family, and one is of a family that only the tests have.
        const std::string family = info["family"].get<std::string>();
        CHECK(entry.path().filename().string().starts_with(family));
        const bool known = family == "gpt2" || family == "gpt-oss" || family == "llama";
        CHECK(info["problem"].is_null() == known);
        CHECK(info["parameters"] > 0);
        ++models;
    }
    CHECK(models > 0);
}
