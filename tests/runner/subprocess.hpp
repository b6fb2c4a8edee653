// Runs the built gg command as a child process. It sees no GPU, so that these tests are about the host on
// every machine.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gguf/temporary_folder.hpp"

namespace runner_test {

inline std::string read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const std::filesystem::path& path, std::string_view text) {
    std::ofstream(path, std::ios::binary) << text;
}

/// What a finished command gave. `code` is the exit code, or 128 and the number of the signal it died of.
struct Result {
    int code;
    std::string out, err;
};

/// Where a child's standard output goes.
enum class Output { file, closed, pipe_without_reader };

class Child {
  public:
    explicit Child(std::vector<std::string> arguments, std::string_view input = "",
                   Output output = Output::file) {
        arguments.insert(arguments.begin(), GG_RUNNER);
        write_file(folder_ / "in", input);
        posix_spawn_file_actions_t files;
        posix_spawn_file_actions_init(&files);
        const std::string in = folder_ / "in", out = folder_ / "out", err = folder_ / "err";
        constexpr int write_new = O_WRONLY | O_CREAT | O_TRUNC;
        posix_spawn_file_actions_addopen(&files, 0, in.c_str(), O_RDONLY, 0);
        posix_spawn_file_actions_addopen(&files, 2, err.c_str(), write_new, 0600);
        int ends[2] = {-1, -1};
        if (output == Output::file) posix_spawn_file_actions_addopen(&files, 1, out.c_str(), write_new, 0600);
        if (output == Output::closed) posix_spawn_file_actions_addclose(&files, 1);
        if (output == Output::pipe_without_reader) {
            if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
            ::close(ends[0]);
            posix_spawn_file_actions_adddup2(&files, ends[1], 1);
        }
        // Without a GPU on every machine; this process, whose other tests may use one, keeps its environment.
        std::vector<std::string> environment = {"CUDA_VISIBLE_DEVICES="};
        for (char** variable = environ; *variable != nullptr; ++variable)
            if (!std::string_view(*variable).starts_with(environment[0])) environment.emplace_back(*variable);
        const int error = ::posix_spawn(&process_, GG_RUNNER, &files, nullptr, pointers_to(arguments).data(),
                                        pointers_to(environment).data());
        posix_spawn_file_actions_destroy(&files);
        if (ends[1] >= 0) ::close(ends[1]);
        if (error != 0) throw std::runtime_error("cannot start " GG_RUNNER);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (process_ < 0) return;
        signal(SIGKILL);
        ::waitpid(process_, nullptr, 0);
    }

    void signal(int number) const { ::kill(process_, number); }
    std::string out() const { return read_file(folder_ / "out"); }
    std::string err() const { return read_file(folder_ / "err"); }

    /// Waits until the condition holds or the time is over; says whether it holds.
    template <class Condition>
    static bool wait_until(Condition condition, std::chrono::seconds most = std::chrono::seconds(60)) {
        const auto end = std::chrono::steady_clock::now() + most;
        while (!condition()) {
            if (std::chrono::steady_clock::now() > end) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return true;
    }

    /// Waits for its end. Throws if it does not come.
    Result wait() {
        int status = 0;
        if (!wait_until([&] { return ::waitpid(process_, &status, WNOHANG) == process_; }))
            throw std::runtime_error("gg does not end");
        process_ = -1;
        return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), out(), err()};
    }

  private:
    /// As C wants a list of strings.
    static std::vector<char*> pointers_to(std::vector<std::string>& strings) {
        std::vector<char*> pointers;
        for (std::string& string : strings) pointers.push_back(string.data());
        pointers.push_back(nullptr);
        return pointers;
    }

    gguf_test::TemporaryFolder folder_;
    pid_t process_ = -1;
};

/// Runs `gg ARGUMENTS...` to its end.
inline Result run_gg(std::vector<std::string> arguments, std::string_view input = "") {
    return Child(std::move(arguments), input).wait();
}

}  // namespace runner_test
