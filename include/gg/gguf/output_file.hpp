// A file that appears under its name complete or not at all: it is written under a temporary name in the same
// folder, brought to the disk, and renamed. If anything fails before, the temporary file is removed and what
// had the name before is left as it was.
//
// Errors: gg::Error, invalid_request, naming the file and the system's reason.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "gg/core/error.hpp"

namespace gg::gguf {

/// Collects writes; commit() makes them the file, destruction without it leaves no trace.
class OutputFile {
  public:
    explicit OutputFile(const std::filesystem::path& path) : path_(path) {
        static std::atomic<unsigned> serial{0};
        const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
        do {
            std::string name(1, '.');
            name.append(path.filename().string()).append(".").append(std::to_string(::getpid()));
            name.append(".").append(std::to_string(serial++)).append(".tmp");
            temporary_ = (folder / name).string();
            descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        } while (descriptor_ < 0 && errno == EEXIST);
        if (descriptor_ < 0) fail("a folder that can be written to");
        buffer_.reserve(buffer_bytes);
    }
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;
    ~OutputFile() {
        if (descriptor_ >= 0) ::close(descriptor_);
        if (!temporary_.empty()) ::unlink(temporary_.c_str());
    }

    void write(std::span<const std::byte> bytes) {
        if (buffer_.size() + bytes.size() > buffer_bytes) {
            flush();
            if (bytes.size() >= buffer_bytes) return write_through(bytes);
        }
        buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }

    /// Brings everything to the disk and gives the file its name.
    void commit() {
        flush();
        if (::fsync(descriptor_) != 0) fail("a file that can be brought to the disk");
        if (::close(std::exchange(descriptor_, -1)) != 0) fail("a file that can be closed");
        if (std::rename(temporary_.c_str(), path_.string().c_str()) != 0) fail("a name that can be taken");
        temporary_.clear();
        const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
        const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (descriptor < 0) return;
        ::fsync(descriptor);  // the new name; the data is safe already, and some file systems refuse this
        ::close(descriptor);
    }

  private:
    static constexpr std::size_t buffer_bytes = 1u << 20;

    void flush() {
        write_through(buffer_);
        buffer_.clear();
    }

    void write_through(std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
            if (written < 0 && errno == EINTR) continue;
            if (written < 0) fail("room for the file");
            bytes = bytes.subspan(static_cast<std::size_t>(written));
        }
    }

    [[noreturn]] void fail(const char* expected) const {
        const std::string reason = std::generic_category().message(errno);
        throw Error(ErrorCode::invalid_request,
                    {.file = path_.string(), .field = "writing", .expected = expected, .found = reason});
    }

    std::filesystem::path path_;
    std::string temporary_;
    int descriptor_ = -1;
    std::vector<std::byte> buffer_;
};

}  // namespace gg::gguf
