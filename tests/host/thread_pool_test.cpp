#include "gg/host/thread_pool.hpp"

#include <atomic>
#include <vector>

#include "catch.hpp"

TEST_CASE("a thread pool runs every task of every loop once, by a thread of its own number") {
    for (const int threads : {1, 2, 3, 7}) {
        gg::host::ThreadPool pool(threads);
        REQUIRE(pool.size() == threads);
        long wrong = 0;
        for (int loop = 0; loop < 3000; ++loop) {
            std::vector<std::atomic<int>> runs(static_cast<std::size_t>(loop % 41));
            std::vector<std::atomic<int>> inside(static_cast<std::size_t>(threads));
            std::atomic<int> shared{0};
            pool.run(static_cast<long>(runs.size()), [&](long task, int thread) {
                auto& mine = inside[static_cast<std::size_t>(thread)];
                if (mine.fetch_add(1) != 0) ++shared;  // two tasks at once with one thread's scratch
                ++runs[static_cast<std::size_t>(task)];
                mine.fetch_sub(1);
            });
            for (const auto& count : runs) wrong += count != 1;
            wrong += shared;
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("a thread pool takes all cores by default") {
    CHECK(gg::host::ThreadPool(0).size() >= 1);
}
