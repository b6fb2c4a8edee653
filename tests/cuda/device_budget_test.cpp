// What a budget gives out, takes back, and says when it refuses.
#include "gg/cuda/device_budget.hpp"

#include <optional>
#include <utility>

#include "catch.hpp"
#include "refusal.hpp"

using gg::cuda::DeviceBudget;
using gg::cuda::Reservation;

namespace {

constexpr std::uint64_t gib = std::uint64_t{1} << 30;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
}

}  // namespace

TEST_CASE("a budget is the limit or the device, less the overhead and what is reserved") {
    CHECK(DeviceBudget("GPU", 80 * gib, 0, gib).available() == 79 * gib);
    CHECK(DeviceBudget("GPU", 80 * gib, 16 * gib, gib).available() == 15 * gib);
    CHECK(DeviceBudget("GPU", 8 * gib, 16 * gib, gib).available() == 7 * gib);
    CHECK(DeviceBudget("GPU", 80 * gib, gib / 2, gib).available() == 0);
    CHECK(DeviceBudget("GPU", 80 * gib).available() == 80 * gib - gg::cuda::device_overhead_bytes);
}

TEST_CASE("reservations come back when they end, and move") {
    DeviceBudget budget("GPU", 10 * gib, 0, gib);
    {
        const Reservation weights = budget.reserve(6 * gib, "weights");
        CHECK(weights.bytes() == 6 * gib);
        CHECK(budget.available() == 3 * gib);
        std::optional<Reservation> cache = budget.reserve(3 * gib, "cache");
        CHECK(budget.available() == 0);
        Reservation moved = std::move(*cache);
        cache.reset();
        CHECK(budget.reserved() == 9 * gib);
        moved = Reservation();
        CHECK(budget.reserved() == 6 * gib);
        moved = budget.reserve(2 * gib, "cache");
        moved = budget.reserve(gib, "cache");  // the old one ends with the temporary
        CHECK(budget.reserved() == 7 * gib);
    }
    CHECK(budget.reserved() == 0);
}

TEST_CASE("a refusal names need, what is available, limit and device, and the next step") {
    DeviceBudget budget("H100 (cuda:0)", 80 * gib, 16 * gib, gib);
    const Reservation weights = budget.reserve(11 * gib, "weights");
    const std::string limited = gg_test::refusal(gg::ErrorCode::out_of_memory,
                                                 [&] { budget.reserve(5 * gib, "the key-value cache"); });
    CHECK(limited ==
          "the key-value cache: expected at most 4.00 GiB, which are available under the limit of 16.0 GiB "
          "on H100 (cuda:0), found a need of 5.00 GiB. Use a shorter context or fewer sessions, or raise the "
          "limit.");
    CHECK(budget.reserved() == 11 * gib);
    DeviceBudget whole("H100 (cuda:0)", 80 * gib, 0, gib);
    const std::string unlimited =
        gg_test::refusal(gg::ErrorCode::out_of_memory, [&] { whole.reserve(80 * gib, "weights"); });
    CHECK(contains(unlimited, "79.0 GiB, which are available of the 80.0 GiB of H100 (cuda:0)"));
    CHECK(contains(unlimited, "a GPU with more memory"));
    CHECK_NOTHROW(whole.reserve(79 * gib, "weights"));
}
