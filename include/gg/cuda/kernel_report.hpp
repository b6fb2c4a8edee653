// What the assembler says about each kernel, read from its verbose log:
//
//   ptxas info    : Function properties for NAME
//   ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
//   ptxas info    : Used 32 registers, used 1 barriers, 128 bytes smem
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gg::cuda {

/// The resources of a kernel, or of a function that was not compiled into its callers (its registers are 0:
/// they count in the kernel). A spill is a register that is kept in memory.
struct KernelReport {
    std::string name;
    int registers = 0;               ///< a thread
    std::uint64_t spill_bytes = 0;   ///< written and read, a thread
    std::uint64_t stack_bytes = 0;   ///< a thread
    std::uint64_t shared_bytes = 0;  ///< static, a block
};

namespace detail {

/// The number right before `unit` in the line; 0 if there is none.
inline std::uint64_t number_before(std::string_view line, std::string_view unit) {
    const std::size_t end = line.find(unit);
    if (end == line.npos) return 0;
    std::size_t begin = end;
    while (begin > 0 && line[begin - 1] >= '0' && line[begin - 1] <= '9') --begin;
    std::uint64_t value = 0;
    std::from_chars(line.data() + begin, line.data() + end, value);
    return value;
}

}  // namespace detail

/// The kernels and functions in the order of the log.
inline std::vector<KernelReport> read_reports(std::string_view log) {
    constexpr std::string_view header = "Function properties for ";
    std::vector<KernelReport> kernels;
    while (!log.empty()) {
        const std::size_t end = std::min(log.find('\n'), log.size());
        const std::string_view line = log.substr(0, end);
        log.remove_prefix(std::min(end + 1, log.size()));
        if (const std::size_t at = line.find(header); at != line.npos)
            kernels.push_back({.name = std::string(line.substr(at + header.size()))});
        if (kernels.empty()) continue;
        KernelReport& kernel = kernels.back();
        kernel.spill_bytes += detail::number_before(line, " bytes spill stores");
        kernel.spill_bytes += detail::number_before(line, " bytes spill loads");
        kernel.stack_bytes += detail::number_before(line, " bytes stack frame");
        kernel.shared_bytes += detail::number_before(line, " bytes smem");
        kernel.registers += static_cast<int>(detail::number_before(line, " registers"));
    }
    return kernels;
}

}  // namespace gg::cuda
