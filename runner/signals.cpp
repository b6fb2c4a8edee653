#include "signals.hpp"

#include <signal.h>
#include <unistd.h>

#include <string_view>

#include "gg/gguf/fault.hpp"

namespace gg::runner {

namespace {

volatile sig_atomic_t interrupt_seen = 0;

void on_interrupt(int) {
    interrupt_seen = 1;
}

void on_bus_error(int signal, siginfo_t* info, void*) {
    const std::string_view path = gguf::describe_fault(info->si_addr);
    if (path.empty()) {
        // Not in a model file: fault again, and die of it.
        ::signal(signal, SIG_DFL);
        return;
    }
    for (const std::string_view part :
         {std::string_view("gg: error: "), path,
          std::string_view(": the file was truncated, or could not be read, while in use. Restore it and run "
                           "again.\n")})
        if (::write(STDERR_FILENO, part.data(), part.size()) < 0) break;
    ::_exit(1);
}

}  // namespace

void install_signal_handlers() {
    ::signal(SIGPIPE, SIG_IGN);
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGBUS, &action, nullptr);
}

void catch_interrupt() {
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    ::sigaction(SIGINT, &action, nullptr);
}

bool interrupted() {
    return interrupt_seen != 0;
}

}  // namespace gg::runner
