// How far a long piece of work has come, on standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gg::runner {

/// On a terminal, one line that is redrawn and wiped at the end; elsewhere a line every few seconds, and none
/// for work of less than a second.
class Progress {
  public:
    Progress(std::string label, std::uint64_t total);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();

    /// `detail` is shown behind the percentage, if it is not empty.
    void update(std::uint64_t done, std::string_view detail = {});

  private:
    using Clock = std::chrono::steady_clock;

    std::string label_;
    std::uint64_t total_;
    bool terminal_;
    bool drawn_ = false;
    Clock::time_point next_;
};

/// The steps of a piece of work, each with its own total: one Progress after the other.
class StepsProgress {
  public:
    void update(std::string_view step, std::uint64_t done, std::uint64_t total) {
        if (!progress_ || step != step_) {
            wipe();
            step_ = step;
            progress_.emplace(step_, total);
        }
        progress_->update(done);
    }
    /// Before something else is printed.
    void wipe() { progress_.reset(); }

  private:
    std::string step_;
    std::optional<Progress> progress_;
};

}  // namespace gg::runner
