// The memory that the system could still give out.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>

namespace gg::host {

/// Bytes that new data can take without swapping, less a twentieth for everything else: MemAvailable of
/// Linux. Nothing if the system does not tell.
inline std::optional<std::uint64_t> available_memory() {
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    const std::unique_ptr<std::FILE, Close> file(std::fopen("/proc/meminfo", "re"));
    if (!file) return {};
    char line[256];
    while (std::fgets(line, sizeof line, file.get())) {
        unsigned long long kibibytes = 0;
        if (std::sscanf(line, "MemAvailable: %llu kB", &kibibytes) == 1) return kibibytes * 1024 / 20 * 19;
    }
    return {};
}

}  // namespace gg::host
