// A fixed team of threads that runs one parallel loop at a time; the caller is one of them. Between loops the
// others spin for some microseconds, since the next loop of a token follows at once, and then sleep.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gg::host {

class ThreadPool {
  public:
    /// `threads` in all, the caller included; 0 means as many as the process may use.
    explicit ThreadPool(int threads) {
        const int wanted = threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency());
        size_ = std::max(1, wanted);
        for (int i = 1; i < size_; ++i) workers_.emplace_back([this, i] { work(i); });
    }
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;
    ~ThreadPool() {
        stopping_.store(true, std::memory_order_relaxed);
        generation_.fetch_add(1, std::memory_order_release);
        generation_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    int size() const { return size_; }

    /// Calls f(task, thread) for every task in [0, count), each once, in any order, and waits. f must not
    /// throw and must not start a loop itself. Which thread runs a task must not matter to the result.
    template <class F>
    void run(long count, F&& f) {
        if (count <= 0) return;
        if (size_ == 1 || count == 1) {
            for (long i = 0; i < count; ++i) f(i, 0);
            return;
        }
        using Function = std::remove_reference_t<F>;
        call_ = [](void* context, long task, int thread) {
            (*static_cast<Function*>(context))(task, thread);
        };
        context_ = const_cast<void*>(static_cast<const void*>(&f));
        count_ = count;
        next_.store(0, std::memory_order_relaxed);
        busy_.store(size_ - 1, std::memory_order_relaxed);
        generation_.fetch_add(1, std::memory_order_release);
        generation_.notify_all();
        drain(0);
        wait_until([this] { return busy_.load(std::memory_order_acquire) == 0; },
                   [this] {
                       if (const int left = busy_.load(std::memory_order_acquire)) busy_.wait(left);
                   });
    }

  private:
    static constexpr int spins = 4000;  // some 30 to 60 microseconds

    template <class Done, class Sleep>
    static void wait_until(Done&& done, Sleep&& sleep) {
        for (int i = 0; i < spins; ++i) {
            if (done()) return;
#if defined(__x86_64__)
            _mm_pause();
#endif
        }
        while (!done()) sleep();
    }

    void drain(int thread) {
        for (long task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < count_;)
            call_(context_, task, thread);
    }

    void work(int thread) {
        std::uint32_t seen = 0;
        for (;;) {
            wait_until([&] { return generation_.load(std::memory_order_acquire) != seen; },
                       [&] { generation_.wait(seen, std::memory_order_acquire); });
            ++seen;
            if (stopping_.load(std::memory_order_relaxed)) return;
            drain(thread);
            if (busy_.fetch_sub(1, std::memory_order_release) == 1) busy_.notify_all();
        }
    }

    int size_ = 1;
    std::vector<std::thread> workers_;
    std::atomic<std::uint32_t> generation_{0};
    std::atomic<bool> stopping_{false};
    std::atomic<long> next_{0};
    std::atomic<int> busy_{0};
    long count_ = 0;
    void* context_ = nullptr;
    void (*call_)(void*, long, int) = nullptr;
};

}  // namespace gg::host
