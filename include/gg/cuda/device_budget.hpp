// What a model may use of a GPU's memory, counted before anything is allocated: under the user's limit, or
// all of the device. Whoever allocates reserves first, so that a limit holds whatever else the device has
// free.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "gg/core/bytes_text.hpp"
#include "gg/core/error.hpp"

namespace gg::cuda {

/// What the process takes beside what it allocates itself: the CUDA context, the code of the kernels and
/// their local memory, graphs, and the granularity of allocations.
inline constexpr std::uint64_t device_overhead_bytes = std::uint64_t{640} << 20;

class DeviceBudget;

/// Bytes of a budget that are spoken for until the end of its life. The budget outlives it.
class Reservation {
  public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Reservation& operator=(Reservation&& other) noexcept {
        std::swap(budget_, other.budget_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Reservation();

    std::uint64_t bytes() const { return bytes_; }

  private:
    friend class DeviceBudget;
    Reservation(DeviceBudget& budget, std::uint64_t bytes) : budget_(&budget), bytes_(bytes) {}

    DeviceBudget* budget_ = nullptr;
    std::uint64_t bytes_ = 0;
};

/// Not thread-safe.
class DeviceBudget {
  public:
    /// `device` is for messages; `device_bytes` is its memory, `limit` what may be used of it (0: all),
    /// overhead included.
    DeviceBudget(std::string device, std::uint64_t device_bytes, std::uint64_t limit = 0,
                 std::uint64_t overhead = device_overhead_bytes)
        : device_(std::move(device)), device_bytes_(device_bytes), limit_(limit), overhead_(overhead) {}
    DeviceBudget(const DeviceBudget&) = delete;
    DeviceBudget& operator=(const DeviceBudget&) = delete;

    /// The limit, or the device's memory where that is less or there is no limit.
    std::uint64_t total() const { return limit_ == 0 ? device_bytes_ : std::min(limit_, device_bytes_); }
    std::uint64_t reserved() const { return reserved_; }
    /// What can still be reserved.
    std::uint64_t available() const {
        const std::uint64_t used = overhead_ + reserved_;
        return total() > used ? total() - used : 0;
    }

    /// Throws out_of_memory, naming `purpose`, if that is more than is available.
    Reservation reserve(std::uint64_t bytes, const std::string& purpose) {
        if (bytes > available()) refuse(bytes, purpose);
        reserved_ += bytes;
        return Reservation(*this, bytes);
    }

    /// Throws out_of_memory that says what is available of what, on which device. An empty `next_step`
    /// becomes a general one.
    [[noreturn]] void refuse(std::uint64_t bytes, const std::string& purpose,
                             std::string next_step = {}) const {
        const bool limited = total() < device_bytes_;
        const std::string most = bytes_text(total());
        if (next_step.empty())
            next_step = std::string("Use a shorter context or fewer sessions") +
                        (limited ? ", or raise the limit." : ", or a GPU with more memory.");
        throw Error(
            ErrorCode::out_of_memory,
            {.field = purpose,
             .expected = "at most " + bytes_text(available()) + ", which are available " +
                         (limited ? "under the limit of " + most + " on " : "of the " + most + " of ") +
                         device_,
             .found = "a need of " + bytes_text(bytes),
             .next_step = std::move(next_step)});
    }

  private:
    friend class Reservation;

    std::string device_;
    std::uint64_t device_bytes_, limit_, overhead_;
    std::uint64_t reserved_ = 0;
};

inline Reservation::~Reservation() {
    if (budget_ != nullptr) budget_->reserved_ -= bytes_;
}

}  // namespace gg::cuda
