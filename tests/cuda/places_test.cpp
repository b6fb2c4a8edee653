// A session's cache: what the host allocates is what the stages address.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "gg/cuda/places.hpp"
#include "gg/cuda/workspace_sizes.hpp"

namespace {

/// As source.hpp writes them.
struct Fixed {
    static constexpr int kv_heads = 3, head_dim = 20, window = 100,
                         prefill_chunk = gg::cuda::cuda_prefill_chunk;
};

gg::Dims dims_of(const std::vector<bool>& sliding) {
    gg::Dims dims;
    dims.layers = static_cast<int>(sliding.size());
    dims.heads = dims.kv_heads = Fixed::kv_heads;
    dims.head_dim = Fixed::head_dim;
    dims.window = Fixed::window;
    dims.sliding = sliding;
    return dims;
}

}  // namespace

TEST_CASE("the layers' caches follow each other and fill the session's") {
    using namespace gg::cuda;
    const gg::Dims dims = dims_of({true, false, false, true, true});
    const std::vector<LayerPlace> places = layer_places<gg::GptOss>(dims);
    REQUIRE(places.size() == 5);
    for (const int context : {1, 63, 64, 65, 2000, 2147, 2148, 5000, 131072}) {
        CAPTURE(context);
        const int capacity = cache_capacity(context);
        CHECK(capacity >= context);
        auto* const base = reinterpret_cast<unsigned char*>(std::uintptr_t{1} << 30);
        std::uint64_t bytes = 0, faults = 0;
        for (std::size_t i = 0; i < places.size(); ++i) {
            const LayerCache cache = layer_cache<Fixed>(base, capacity, places[i]);
            const std::uint64_t half =
                std::uint64_t{Fixed::kv_heads} * 24 * 2 * static_cast<std::uint64_t>(cache.positions);
            faults += reinterpret_cast<unsigned char*>(cache.keys) != base + bytes;
            faults += reinterpret_cast<unsigned char*>(cache.values) != base + bytes + half;
            CHECK(cache.positions ==
                  gg::cache_positions(dims, static_cast<int>(i), context, cuda_cache_shape));
            bytes += 2 * half;
        }
        CHECK(faults == 0);
        CHECK(bytes == gg::cache_bytes(dims, context, cuda_cache_shape));
    }
}

// Which positions' keys lie in a ring while a step goes through it in parts.
TEST_CASE("a ring holds the window of every row of a long step in parts") {
    using namespace gg::cuda;
    const int window = Fixed::window, capacity = cache_capacity(131072);
    const int positions = sliding_capacity(window, cuda_prefill_chunk, capacity);
    const auto holds = [&](int start, int rows, int part) {
        std::vector<int> slots(static_cast<std::size_t>(positions), -1);
        for (int at = 0; at < start; ++at) slots[static_cast<std::size_t>(at % positions)] = at;
        for (int begin = start; begin < start + rows; begin += part) {
            const int end = std::min(begin + part, start + rows);
            for (int at = begin; at < end; ++at) slots[static_cast<std::size_t>(at % positions)] = at;
            for (int at = std::max(begin - window + 1, 0); at < end; ++at)
                if (slots[static_cast<std::size_t>(at % positions)] != at) return false;
        }
        return true;
    };
    for (const int start : {0, 1, 99, 100, 2047, 2148, 5000, 70001})
        for (const int rows : {1, 2048, 2049, 4096, 5000, prefill_steps[0]}) {
            CAPTURE(start, rows);
            CHECK(holds(start, rows, cuda_prefill_chunk));
        }
    CHECK_FALSE(holds(5000, prefill_steps[0], prefill_steps[0]));
    CHECK_FALSE(holds(5000, prefill_steps[0], positions - window + 2));
}

TEST_CASE("a composition without a window is refused for layers that slide") {
    CHECK_THROWS_AS(gg::cuda::layer_places<gg::Llama>(dims_of({true, false})), gg::Error);
    CHECK(gg::cuda::layer_places<gg::Llama>(dims_of({false, false})).size() == 2);
}
