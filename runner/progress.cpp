#include "progress.hpp"

#include <unistd.h>

#include <utility>

#include "output.hpp"

namespace gg::runner {

namespace {

void write_terminal(const std::string& text) {
    if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;  // nowhere to tell it
}

}  // namespace

Progress::Progress(std::string label, std::uint64_t total)
    : label_(std::move(label)),
      total_(total),
      terminal_(::isatty(STDERR_FILENO) == 1),
      next_(Clock::now() + std::chrono::milliseconds(terminal_ ? 200 : 1000)) {}

Progress::~Progress() {
    if (terminal_ && drawn_) write_terminal("\r\033[K");
}

void Progress::update(std::uint64_t done, std::string_view detail) {
    const Clock::time_point now = Clock::now();
    if (now < next_ || total_ == 0) return;
    next_ = now + std::chrono::milliseconds(terminal_ ? 100 : 5000);
    drawn_ = true;
    const double part = static_cast<double>(done) / static_cast<double>(total_);
    std::string percent = std::to_string(static_cast<int>(100 * part)) + " %";
    if (!detail.empty()) percent.append(", ").append(detail);
    if (!terminal_) return print_note(label_ + ": " + percent);
    constexpr std::size_t width = 30;
    const auto filled = static_cast<std::size_t>(width * part);
    write_terminal("\r" + label_ + " [" + std::string(filled, '#') + std::string(width - filled, '.') + "] " +
                   percent + "\033[K");
}

}  // namespace gg::runner
