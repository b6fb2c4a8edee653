// A fixed team of threads that runs one parallel loop at a time; the caller is one of them. Between loops the
// others spin for some microseconds, since the next loop of a token follows at once, and then sleep. A loop
// ends when its tasks are done, whether or not every thread has woken: on a busy machine the caller does the
// work of a thread that the system has set aside.
//
// A task is claimed by moving on one atomic ticket, (loop number, next task). While the ticket is closed the
// caller may change the loop's description; a claim that succeeds proves that the description read before it
// belongs to that loop.
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
        const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
        size_ = threads > 0 ? threads : cores;
        spins_ = size_ > cores ? 0 : 4000;  // some 30 to 60 microseconds
        for (int i = 1; i < size_; ++i) workers_.emplace_back([this, i] { work(i); });
    }
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;
    ~ThreadPool() {
        stopping_.store(true, std::memory_order_relaxed);
        loop_.fetch_add(1, std::memory_order_release);
        loop_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    int size() const { return size_; }

    /// Calls f(task, thread) for every task in [0, count), each once, in any order, and waits. f must not
    /// throw and must not start a loop itself. Which thread runs a task must not matter to the result.
    /// count is below 2^32 - 1.
    template <class F>
    void run(long count, F&& f) {
        if (count <= 0) return;
        if (size_ == 1 || count == 1) {
            for (long i = 0; i < count; ++i) f(i, 0);
            return;
        }
        using Function = std::remove_reference_t<F>;
        const std::uint32_t loop = loop_.load(std::memory_order_relaxed) + 1;
        ticket_.store(std::uint64_t{loop} << 32 | closed, std::memory_order_release);
        call_.store(
            [](void* context, long task, int thread) { (*static_cast<Function*>(context))(task, thread); },
            std::memory_order_release);
        context_.store(const_cast<void*>(static_cast<const void*>(&f)), std::memory_order_release);
        count_.store(static_cast<std::uint32_t>(count), std::memory_order_release);
        done_.store(0, std::memory_order_relaxed);
        ticket_.store(std::uint64_t{loop} << 32, std::memory_order_release);
        loop_.store(loop, std::memory_order_release);
        loop_.notify_all();
        drain(0);
        const auto all = static_cast<std::uint32_t>(count);
        wait_until([&] { return done_.load(std::memory_order_acquire) == all; },
                   [&] {
                       const std::uint32_t done = done_.load(std::memory_order_acquire);
                       if (done != all) done_.wait(done, std::memory_order_acquire);
                   });
    }

  private:
    static constexpr std::uint32_t closed = 0xFFFFFFFF;
    using Call = void (*)(void*, long, int);

    template <class Done, class Sleep>
    void wait_until(Done&& done, Sleep&& sleep) const {
        for (int i = 0; i < spins_; ++i) {
            if (done()) return;
#if defined(__x86_64__)
            _mm_pause();
#endif
        }
        while (!done()) sleep();
    }

    /// Runs tasks of the open loop until none is left to claim.
    void drain(int thread) {
        for (;;) {
            std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
            const auto task = static_cast<std::uint32_t>(ticket);
            const std::uint32_t count = count_.load(std::memory_order_acquire);
            if (task >= count) return;  // closed is more than any count
            const Call call = call_.load(std::memory_order_acquire);
            void* const context = context_.load(std::memory_order_acquire);
            if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
            call(context, task, thread);
            if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) done_.notify_all();
        }
    }

    void work(int thread) {
        std::uint32_t seen = 0;
        for (;;) {
            wait_until([&] { return loop_.load(std::memory_order_acquire) != seen; },
                       [&] { loop_.wait(seen, std::memory_order_acquire); });
            seen = loop_.load(std::memory_order_acquire);
            if (stopping_.load(std::memory_order_relaxed)) return;
            drain(thread);
        }
    }

    int size_ = 1;
    int spins_ = 0;
    std::vector<std::thread> workers_;
    std::atomic<bool> stopping_{false};
    std::atomic<std::uint32_t> loop_{0};  ///< number of the last loop, counted from 1
    std::atomic<std::uint64_t> ticket_{closed};
    std::atomic<std::uint32_t> count_{0};
    std::atomic<std::uint32_t> done_{0};
    std::atomic<void*> context_{nullptr};
    std::atomic<Call> call_{nullptr};
};

}  // namespace gg::host
