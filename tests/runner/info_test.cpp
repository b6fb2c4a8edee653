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
        CHECK(row["step_tokens"] == 256);
        CHECK(row["cache_bytes"] == context * 128);
        // At least two rows of the residual for each token of a chunk.
        CHECK(row["workspace_bytes"] > 256 * 2 * 32 * 4);
        CHECK(row["workspace_bytes"] < 4 << 20);
        CHECK(row["total_bytes"] ==
              4 * parameters + context * 128 + row["workspace_bytes"].get<std::uint64_t>());
    }
    // On a GPU: 8 matrices as tiles of 16 x 64, a vector's floats padded to 256 bytes, an embedding of
    // floats.
    const json& gpu = info["gpu_memory"];
    const int row_tiles = (32 + 16 + 16) / 16 + 32 / 16 + 2 * 64 / 16 + 32 / 16 + (model.rows() + 15) / 16;
    const int gpu_weights_bytes = row_tiles * 2048 + 3 * 256 + (32 * model.rows() * 4 + 255) / 256 * 256;
    REQUIRE(gpu["contexts"].size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
        const json& row = gpu["contexts"][i];
        const std::uint64_t cache = row["cache_bytes"], workspace = row["workspace_bytes"];
        CHECK(row["context"] == info["memory"][i]["context"]);
        CHECK(row["weight_bytes"] == gpu_weights_bytes);
        CHECK(cache == row["context"].get<std::uint64_t>() * 2 * 16 * 2);
        CHECK(workspace > 0);
        CHECK(row["step_tokens"] == row["context"]);
        CHECK(row["total_bytes"] ==
              row["overhead_bytes"].get<std::uint64_t>() + gpu_weights_bytes +
                  std::max(cache + workspace, row["loading_bytes"].get<std::uint64_t>()));
    }
    // What fits is said of the GPU at hand, if there is one.
    CHECK(gpu["device"].is_null() == gpu["available_bytes"].is_null());
    CHECK(gpu["device"].is_null() == gpu["fits"].is_null());
    // The embedding and three norms stay, matrices are rounded.
    const int kept = 32 * model.rows() + 3 * 32;
    const json gpu_weights = {
        {{"type", "F32"}, {"used", "F32"}, {"tensors", 4}, {"bytes", 4 * kept}},
        {{"type", "F32"}, {"used", "F16"}, {"tensors", 8}, {"bytes", 4 * (parameters - kept)}}};
    CHECK(info["gpu_weights"] == gpu_weights);
    const Result text = run_gg({"info", path});
    CHECK(text.code == 0);
    CHECK(text.out.find("weights on a GPU") != std::string::npos);
    CHECK(text.out.find("), reads 256 tokens at a time\n") != std::string::npos);
    CHECK(text.out.find("), reads 4096 tokens at a time\n") != std::string::npos);
    CHECK(text.out.find("memory on a GPU") != std::string::npos);
    CHECK(text.out.find("  F32 F16       8 tensors") != std::string::npos);
    CHECK(text.out.find("llama") != std::string::npos);
    CHECK(run_gg({"info", "-m", path}).out == text.out);
}

TEST_CASE("gg info says what fits into a limit of GPU memory") {
    gguf_test::TemporaryFolder folder;
    const std::string path = folder / "tiny.gguf";
    TinyModel{.context = 1 << 20, .specials = false}.write(path);
    const auto ask = [&](const std::string& limit) {
        const Result result = run_gg({"info", path, "--vram-limit", limit, "--json"});
        REQUIRE(result.code == 0);
        return json::parse(result.out)["gpu_memory"];
    };
    // No GPU that gg can use has less than 3 GB.
    const std::pair<std::string, std::uint64_t> forms[] = {
        {"2GiB", 2147483648},  {"3GB", 3000000000},      {"1.5GiB", 1610612736},
        {"800MiB", 838860800}, {"999.5MB", 999500000},   {"1024KiB", 1048576},
        {"12kB", 12000},       {"0.001TiB", 1099511627}, {"123456789", 123456789}};
    for (const auto& [text, bytes] : forms) {
        CAPTURE(text);
        CHECK(ask(text)["available_bytes"] == bytes);
    }
    const json whole = ask("2GiB"), none = ask("600MiB");
    CHECK(whole["fits"] == true);
    CHECK(whole["largest_context"] == 1 << 20);
    CHECK(none["fits"] == false);
    CHECK(none["largest_context"] == 0);
    CHECK(whole["contexts"].back()["step_tokens"] == 8192);
    // With less memory steps become shorter, and then the cache smaller than the model's context needs.
    const std::uint64_t total = whole["contexts"].back()["total_bytes"];
    CHECK(ask(std::to_string(total))["largest_context"] == 1 << 20);
    const json shorter = ask(std::to_string(total - 1));
    CHECK(shorter["largest_context"] == 1 << 20);
    CHECK(shorter["contexts"].back()["step_tokens"] < 8192);
    const std::uint64_t workspace = whole["contexts"].back()["workspace_bytes"];
    const json less = ask(std::to_string(total - workspace));
    CHECK(less["fits"] == true);
    CHECK(less["largest_context"] < 1 << 20);
    CHECK(less["largest_context"] > 800000);
    CHECK(run_gg({"info", path, "--vram-limit", "2GiB"})
              .out.find("  in 2.00 GiB   fits with a context of up to 1048576 tokens\n") !=
          std::string::npos);
    CHECK(run_gg({"info", path, "--vram-limit", "600MiB"}).out.find("  in 600.0 MiB  does not fit\n") !=
          std::string::npos);
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
        CHECK(info["gpu_memory"].is_null());
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
