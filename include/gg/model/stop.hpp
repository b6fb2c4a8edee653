// How a computation is ended early: from another thread, or at a time.
#pragma once

#include <atomic>
#include <chrono>

#include "gg/core/error.hpp"

namespace gg {

/// A request to stop and a deadline. cancel() and set_deadline() may be called from any thread.
class StopSignal {
  public:
    using Clock = std::chrono::steady_clock;
    static constexpr Clock::time_point never = Clock::time_point::max();

    void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
    void set_deadline(Clock::time_point when) noexcept {
        deadline_.store(when.time_since_epoch().count(), std::memory_order_relaxed);
    }

    /// Throws cancelled if cancel() was called since the last throw, timeout if the deadline has passed.
    void check() {
        if (cancelled_.load(std::memory_order_relaxed) &&
            cancelled_.exchange(false, std::memory_order_relaxed))
            throw Error(ErrorCode::cancelled,
                        "cancelled: cancel() was called. Tokens appended before stay; go on or reset.");
        const Clock::rep deadline = deadline_.load(std::memory_order_relaxed);
        if (deadline != never.time_since_epoch().count() &&
            Clock::now().time_since_epoch().count() >= deadline)
            throw Error(ErrorCode::timeout,
                        "the deadline has passed. Tokens appended before stay; set a later one to go on.");
    }

  private:
    std::atomic<bool> cancelled_{false};
    std::atomic<Clock::rep> deadline_{never.time_since_epoch().count()};
};

}  // namespace gg
