// A memory plan's sums, and the search for the largest context.
#include "gg/model/memory_plan.hpp"

#include <initializer_list>

#include "catch.hpp"
#include "gg/core/bytes_text.hpp"
#include "gg/host/memory_plan.hpp"
#include "host/golden.hpp"

TEST_CASE("a plan adds up its parts, and counts what loading needs beside the weights") {
    gg::MemoryPlan plan;
    plan.sessions = 3;
    plan.weights = 1000;
    plan.loading = 50;
    plan.cache = 7;
    plan.decoding = 1;
    plan.reading = 2;
    plan.drawing = 4;
    plan.overhead = 300;
    CHECK(plan.caches() == 21);
    CHECK(plan.workspace() == 7);
    CHECK(plan.total() == 300 + 1000 + 50);
    plan.cache = 100;
    CHECK(plan.total() == 300 + 1000 + 300 + 7);
}

TEST_CASE("the largest context that fits") {
    const auto need = [](int context) { return 100 + 8 * static_cast<std::uint64_t>(context); };
    CHECK(gg::largest_context(50, 1000, need) == 50);
    CHECK(gg::largest_context(50, 100 + 8 * 50, need) == 50);
    CHECK(gg::largest_context(50, 100 + 8 * 50 - 1, need) == 49);
    for (int context = 1; context < 50; ++context)
        for (const std::uint64_t spare : {0u, 7u})
            CHECK(gg::largest_context(50, need(context) + spare, need) == context);
    CHECK(gg::largest_context(50, 107, need) == 0);
    CHECK(gg::largest_context(1, 107, need) == 0);
    CHECK(gg::largest_context(1, 108, need) == 1);
}

TEST_CASE("the host's plan is what its sessions say") {
    const auto file = gg::gguf::File::open(host_test::golden_model("gpt-oss-window"));
    const gg::ModelInfo info = gg::describe_model(file);
    for (const int context : {1, 300}) {
        const gg::MemoryPlan plan = gg::host::memory_plan(info, context, 2, 3);
        const std::uint64_t session = gg::host::session_bytes(info, context, 3);
        CHECK(plan.total() == info.weight_bytes + 2 * session);
        CHECK(plan.cache == gg::cache_bytes(info.dims, context, gg::host::cache_shape));
        CHECK(plan.overhead == 0);
    }
}

TEST_CASE("bytes in messages") {
    CHECK(gg::bytes_text(0) == "0 bytes");
    CHECK(gg::bytes_text(1023) == "1023 bytes");
    CHECK(gg::bytes_text(1024) == "1.00 KiB");
    CHECK(gg::bytes_text(999 * 1024) == "999.0 KiB");
    CHECK(gg::bytes_text(1000 * 1024) == "0.98 MiB");
    CHECK(gg::bytes_text(std::uint64_t{16} << 30) == "16.0 GiB");
    CHECK(gg::bytes_text(std::uint64_t{5000} << 40) == "5000.0 TiB");
}
