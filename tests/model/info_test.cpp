// What a model says of itself, and the memory of sessions, by arithmetic.
#include "gg/host/plan.hpp"

#include "catch.hpp"
#include "host/golden.hpp"

namespace {

gg::ModelInfo describe(const std::string& golden) {
    const auto file = gg::gguf::File::open(host_test::golden_model(golden));
    return gg::describe_model(file);
}

/// The published gpt-oss-20b.
gg::ModelInfo gpt_oss_20b() {
    gg::ModelInfo info;
    gg::Dims& dims = info.dims;
    dims.layers = 24;
    dims.hidden = 2880;
    dims.heads = 64;
    dims.kv_heads = 8;
    dims.head_dim = 64;
    dims.experts = 32;
    dims.experts_used = 4;
    dims.expert_feed_forward = 2880;
    dims.vocabulary = 201088;
    dims.context = 131072;
    dims.window = 128;
    for (int i = 0; i < 24; ++i) dims.sliding.push_back(i % 2 == 0);
    return info;
}

}  // namespace

TEST_CASE("GPT-2: dimensions, parameters, bytes") {
    const gg::ModelInfo info = describe("gpt2-f32");
    CHECK(info.family == "gpt2");
    CHECK(info.name == "gpt2-f32");
    CHECK(info.dims.layers == 2);
    CHECK(info.dims.hidden == 48);
    CHECK(info.dims.heads == 3);
    CHECK(info.dims.kv_heads == 3);
    CHECK(info.dims.head_dim == 16);
    CHECK(info.dims.feed_forward == 51);
    CHECK(info.dims.vocabulary == 97);
    CHECK(info.dims.context == 64);
    CHECK(info.dims.experts == 0);
    CHECK(info.dims.window == 0);
    CHECK(info.dims.norm_epsilon == 1e-5f);
    const std::uint64_t layer = 4 * 48 + (48 + 1) * 144 + (48 + 1) * 48 + (48 + 1) * 51 + (51 + 1) * 48;
    const std::uint64_t parameters = (97 + 64) * 48 + 2 * layer + 2 * 48;  // the head is the embedding
    CHECK(info.parameters == parameters);
    CHECK(info.weight_bytes == 4 * parameters);
}

TEST_CASE("llama: dimensions, parameters, bytes") {
    const gg::ModelInfo info = describe("llama-half");
    CHECK(info.family == "llama");
    CHECK(info.dims.layers == 3);
    CHECK(info.dims.heads == 9);
    CHECK(info.dims.kv_heads == 3);
    CHECK(info.dims.head_dim == 10);  // 9 * 10 is not the width 36
    CHECK(info.dims.rope_base == 500000.0);
    CHECK(info.dims.vocabulary == 999);
    const std::uint64_t norms = 2 * 36, matrices = 36 * 90 + 2 * 36 * 30 + 90 * 36 + 3 * 36 * 37;
    CHECK(info.parameters == 999 * 36 + 3 * (norms + matrices) + 36);
    // Norms are F32, everything else F16 or BF16.
    CHECK(info.weight_bytes == 2 * (999 * 36 + 3 * matrices) + 4 * (3 * norms + 36));
}

TEST_CASE("gpt-oss: dimensions, parameters, bytes") {
    const gg::ModelInfo info = describe("gpt-oss-mxfp4");
    CHECK(info.family == "gpt-oss");
    CHECK(info.dims.experts == 5);
    CHECK(info.dims.experts_used == 2);
    CHECK(info.dims.expert_feed_forward == 64);
    CHECK(info.dims.window == 8);
    CHECK(info.dims.sliding == std::vector<bool>{true, false});
    CHECK(info.dims.slides(0));
    CHECK_FALSE(info.dims.slides(1));
    CHECK(info.dims.yarn_factor == 32.0);
    CHECK(info.dims.yarn_original_context == 4096.0);
    CHECK(info.dims.yarn_beta_fast == 32.0);
    CHECK(info.dims.yarn_beta_slow == 1.0);
    CHECK(info.dims.rope_base == 150000.0);
    const std::uint64_t attention = 65 * 96 + 2 * 65 * 48 + 97 * 64 + 6;
    const std::uint64_t expert_matrices = 5 * 3 * 64 * 64, expert_biases = 5 * 3 * 64;
    const std::uint64_t floats = 2 * 97 * 64 + 64 + 2 * (2 * 64 + attention + 65 * 5 + expert_biases);
    CHECK(info.parameters == floats + 2 * expert_matrices);
    CHECK(info.weight_bytes == 4 * floats + 2 * expert_matrices / 32 * 17);
    CHECK(describe("gpt-oss-half").dims.yarn_beta_fast == 128.0);
    CHECK(describe("gpt-oss-half").dims.yarn_beta_slow == 1.5);
    CHECK(describe("gpt-oss-half").dims.sliding == std::vector<bool>{false, true, true});
}

TEST_CASE("cache positions: all, or the window and one chunk, in tiles of 16") {
    const gg::Dims dims = gpt_oss_20b().dims;
    const gg::CacheShape shape = gg::host::cache_shape;
    REQUIRE(shape.chunk == 256);
    for (int layer = 0; layer < 24; ++layer) {
        const bool slides = layer % 2 == 0;
        CHECK(gg::cache_positions(dims, layer, 1, shape) == 16);
        CHECK(gg::cache_positions(dims, layer, 16, shape) == 16);
        CHECK(gg::cache_positions(dims, layer, 17, shape) == 32);
        CHECK(gg::cache_positions(dims, layer, 383, shape) == 384);
        CHECK(gg::cache_positions(dims, layer, 384, shape) == 384);
        CHECK(gg::cache_positions(dims, layer, 385, shape) == (slides ? 384 : 400));
        CHECK(gg::cache_positions(dims, layer, 131072, shape) == (slides ? 384 : 131072));
        // Another chunk, and another rounding.
        const gg::CacheShape other{.chunk = 2048, .rounding = 64, .element_bytes = 2};
        CHECK(gg::cache_positions(dims, layer, 1, other) == 64);
        CHECK(gg::cache_positions(dims, layer, 65, other) == 128);
        CHECK(gg::cache_positions(dims, layer, 2175, other) == 2176);
        CHECK(gg::cache_positions(dims, layer, 131072, other) == (slides ? 2176 : 131072));
    }
}

TEST_CASE("cache bytes of gpt-oss-20b") {
    const gg::Dims dims = gpt_oss_20b().dims;
    const std::uint64_t position = 8 * (64 + 64);  // keys and values of 8 heads
    const gg::CacheShape full{.chunk = 256, .rounding = 16, .element_bytes = 4};
    const gg::CacheShape half{.chunk = 2048, .rounding = 64, .element_bytes = 2};
    CHECK(gg::cache_bytes(dims, 131072, full) == 12 * position * 4 * (131072 + 384));
    CHECK(gg::cache_bytes(dims, 131072, half) == 12 * position * 2 * (131072 + 2176));
    CHECK(gg::cache_bytes(dims, 8192, full) == 12 * position * 4 * (8192 + 384));
    CHECK(gg::cache_bytes(dims, 200, full) == 24 * position * 4 * 208);
    // At 16 bits the full layers take 3 GiB of the whole context.
    CHECK(gg::cache_bytes(dims, 131072, half) - 12 * position * 2 * 2176 == std::uint64_t{3} << 30);
}

TEST_CASE("values are padded to 16, keys are not") {
    gg::Dims dims;
    dims.layers = 3;
    dims.heads = 9;
    dims.kv_heads = 3;
    dims.head_dim = 10;
    CHECK(gg::cache_bytes(dims, 100, {.chunk = 1, .rounding = 16, .element_bytes = 4}) ==
          3u * 112 * 3 * (10 + 16) * 4);
}

TEST_CASE("session bytes: the cache, and not much more") {
    const gg::ModelInfo info = gpt_oss_20b();
    for (const int context : {1, 1000, 4096, 32768, 131072}) {
        const std::uint64_t cache = gg::cache_bytes(info.dims, context, gg::host::cache_shape);
        const std::uint64_t session = gg::host::session_bytes(info, context);
        CAPTURE(context, cache, session);
        // At least the logits of one row and of 16 scored ones; a few chunks of activations at most.
        CHECK(session >= cache + 17u * 201088 * 4);
        CHECK(session <= cache + cache / 50 + (256u << 20));
    }
}
