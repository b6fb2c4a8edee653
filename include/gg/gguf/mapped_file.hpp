// A whole file mapped read-only into memory.
//
// The mapping is as long as the file was when it was opened. If somebody cuts the file short afterwards, a
// read beyond its new end raises SIGBUS: require_whole() tells beforehand, and a program that must not die
// without a word between two such checks installs a SIGBUS handler (with SA_SIGINFO) that prints
// gguf::describe_fault(info->si_addr) with write(2) and leaves with _exit(1); if that is empty, the fault is
// none of ours, and the handler restores the default action and returns. Replacing a file by rename is
// harmless: the mapping keeps the old one.
//
// Errors: gg::Error, model_load_failed, naming the file and the system's reason.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>

#include "gg/core/error.hpp"
#include "gg/gguf/fault.hpp"

namespace gg::gguf {

/// Owns a descriptor and a read-only mapping of all of a file. Movable; addresses stay the same when moved.
class MappedFile {
  public:
    /// Maps a regular file. Refuses what cannot be opened, a folder, a device or a pipe.
    static MappedFile open(const std::filesystem::path& path) {
        MappedFile file;
        file.state_ = std::make_unique<State>(path);
        file.state_->map();
        return file;
    }

    const std::filesystem::path& path() const { return state_->path; }
    std::span<const std::byte> bytes() const {
        return {state_->data, static_cast<std::size_t>(state_->size)};
    }

    /// Refuses, by name, a file whose size is no longer what it was when it was opened. One fstat: cheap.
    void require_whole() const {
        const std::uint64_t now = state_->current_size();
        if (now == state_->size) return;
        refuse(
            {.file = state_->name,
             .field = "file size",
             .expected = std::to_string(state_->size) + " bytes, as when it was opened",
             .found = std::to_string(now) + " bytes",
             .next_step = "Something changed the file while it was in use: restore it and load it again."});
    }

    /// Whether bytes are among the mapped ones.
    bool holds(const std::byte* from) const {
        return from >= state_->data && from < state_->data + state_->size;
    }

    /// Copies bytes of the mapping by reading the file: the mapping's pages stay untouched, and a file that
    /// was cut short is refused. Thread-safe.
    void read(const std::byte* from, std::size_t bytes, std::byte* to) const {
        auto offset = static_cast<::off_t>(from - state_->data);
        while (bytes > 0) {
            const ::ssize_t got = ::pread(state_->descriptor, to, bytes, offset);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) state_->refuse_by_errno("a file that can be read");
            if (got == 0) {
                require_whole();
                errno = EIO;
                state_->refuse_by_errno("a file that can be read to its end");
            }
            to += got;
            offset += got;
            bytes -= static_cast<std::size_t>(got);
        }
    }

    /// Tells the system that the file is about to be read from front to back. A hint: never fails.
    void advise_sequential() const { state_->advise(state_->data, state_->size, MADV_SEQUENTIAL); }

  private:
    struct State {
        explicit State(const std::filesystem::path& p) : path(p), name(p.string()) {}
        State(const State&) = delete;
        State& operator=(const State&) = delete;
        ~State() {
            detail::forget_mapping(slot);
            if (data) ::munmap(const_cast<std::byte*>(data), static_cast<std::size_t>(size));
            if (descriptor >= 0) ::close(descriptor);
        }

        void map() {
            // Non-blocking, so that a named pipe is refused below and not waited for.
            descriptor = ::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
            if (descriptor < 0) refuse_by_errno("a file that can be opened");
            size = current_size();
            if (size == 0) return;
            void* address =
                ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, descriptor, 0);
            if (address == MAP_FAILED) refuse_by_errno("a file that can be mapped into memory");
            data = static_cast<const std::byte*>(address);
            slot = detail::remember_mapping(data, static_cast<std::size_t>(size), name.c_str());
        }

        std::uint64_t current_size() const {
            struct stat status {};
            if (::fstat(descriptor, &status) != 0) refuse_by_errno("a file whose size can be read");
            if (!S_ISREG(status.st_mode))
                refuse({.file = name,
                        .field = "file",
                        .expected = "a regular file",
                        .found = S_ISDIR(status.st_mode) ? "a folder" : "a device, pipe or socket"});
            return static_cast<std::uint64_t>(status.st_size);
        }

        static void advise(const std::byte* begin, std::uint64_t bytes, int advice) {
            if (begin) ::madvise(const_cast<std::byte*>(begin), static_cast<std::size_t>(bytes), advice);
        }

        [[noreturn]] void refuse_by_errno(const char* expected) const {
            const std::string reason = std::generic_category().message(errno);
            refuse({.file = name, .field = "file", .expected = expected, .found = reason});
        }

        std::filesystem::path path;
        std::string name;
        int descriptor = -1;
        const std::byte* data = nullptr;
        std::uint64_t size = 0;
        detail::MappingSlot* slot = nullptr;
    };

    MappedFile() = default;
    std::unique_ptr<State> state_;
};

}  // namespace gg::gguf
