// Which open mapping holds an address: a fixed table without locks, readable inside a signal handler.
//
// A read from a mapped file whose end has been cut off raises SIGBUS. A library must not install handlers; a
// program may, and ask describe_fault(info->si_addr) which file it was.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gg::gguf {

namespace detail {

struct MappingSlot {
    std::atomic<std::uintptr_t> begin{0};  ///< 0: free; 1: being filled; else the mapping's first address
    std::atomic<std::uintptr_t> end{0};
    std::atomic<const char*> path{nullptr};
};

inline constexpr std::size_t mapping_slots = 256;
inline std::array<MappingSlot, mapping_slots> mapping_table{};

static_assert(std::atomic<std::uintptr_t>::is_always_lock_free &&
              std::atomic<const char*>::is_always_lock_free);

/// Notes a mapping; `path` must live until it is forgotten. Returns its slot, or nullptr if the table is
/// full, in which case the mapping works but has no name in a fault.
inline MappingSlot* remember_mapping(const void* begin, std::size_t bytes, const char* path) {
    for (MappingSlot& slot : mapping_table) {
        std::uintptr_t free = 0;
        if (!slot.begin.compare_exchange_strong(free, 1)) continue;
        const auto address = reinterpret_cast<std::uintptr_t>(begin);
        slot.end.store(address + bytes);
        slot.path.store(path);
        slot.begin.store(address);
        return &slot;
    }
    return nullptr;
}

inline void forget_mapping(MappingSlot* slot) {
    if (slot) slot->begin.store(0);
}

}  // namespace detail

/// The path of the open MappedFile that holds an address, or empty. Safe to call in a signal handler: no
/// lock, no allocation, no system call. The text lives as long as that file is open.
inline std::string_view describe_fault(const void* address) noexcept {
    const auto wanted = reinterpret_cast<std::uintptr_t>(address);
    for (const detail::MappingSlot& slot : detail::mapping_table) {
        const std::uintptr_t begin = slot.begin.load();
        if (begin > 1 && begin <= wanted && wanted < slot.end.load()) return slot.path.load();
    }
    return {};
}

}  // namespace gg::gguf
