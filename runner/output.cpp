#include "output.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <system_error>

#include "gg/core/error.hpp"

namespace gg::runner {

namespace {

std::string reason(int error) {
    return std::generic_category().message(error);
}

// 0, or the errno that ended it.
int write_all(int descriptor, std::string_view text) {
    while (!text.empty()) {
        const ssize_t written = ::write(descriptor, text.data(), text.size());
        if (written >= 0) {
            text.remove_prefix(static_cast<std::size_t>(written));
        } else if (errno == EAGAIN) {
            pollfd wait{descriptor, POLLOUT, 0};
            ::poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

struct Descriptor {
    int number;
    ~Descriptor() {
        if (number > 2) ::close(number);
    }
};

}  // namespace

void write_output(std::string_view text) {
    const int error = write_all(STDOUT_FILENO, text);
    if (error == EPIPE) throw OutputClosed();
    if (error != 0) throw Error(ErrorCode::internal, {.file = "standard output", .found = reason(error)});
}

void print_json(const nlohmann::ordered_json& json) {
    write_output(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

// A message that cannot be written has nowhere to be told.
void print_error(std::string_view message) {
    write_all(STDERR_FILENO, "gg: error: " + std::string(message) + "\n");
}

void print_note(std::string_view message) {
    write_all(STDERR_FILENO, "gg: " + std::string(message) + "\n");
}

std::string read_input(const std::string& path) {
    const bool standard = path == "-";
    const std::string name = standard ? "standard input" : path;
    const Descriptor file{standard ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    std::string text;
    while (true) {
        const std::size_t size = text.size();
        text.resize(size + 65536);
        const ssize_t got = file.number < 0 ? -1 : ::read(file.number, text.data() + size, 65536);
        const int error = errno;
        text.resize(size + static_cast<std::size_t>(got > 0 ? got : 0));
        if (got == 0) return text;
        if (got < 0 && error != EINTR)
            throw Error(ErrorCode::invalid_request,
                        {.file = name, .expected = "text that can be read", .found = reason(error)});
    }
}

std::vector<std::int32_t> parse_ids(std::string_view text, int vocabulary, const std::string& source) {
    constexpr std::string_view blanks = " \t\r\n\f\v";
    std::vector<std::int32_t> ids;
    for (std::size_t at = text.find_first_not_of(blanks); at != text.npos;
         at = text.find_first_not_of(blanks, at)) {
        const std::size_t end = std::min(text.find_first_of(blanks, at), text.size());
        const std::string_view word = text.substr(at, end - at);
        std::int32_t id = -1;
        const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), id);
        if (error != std::errc() || rest != word.data() + word.size() || id < 0 || id >= vocabulary)
            throw Error(ErrorCode::invalid_request,
                        {.file = source,
                         .field = "token at position " + std::to_string(ids.size()) + " (from 0)",
                         .expected = "an id from 0 to " + std::to_string(vocabulary - 1),
                         .found = "\"" + std::string(word.substr(0, 40)) + "\""});
        ids.push_back(id);
        at = end;
    }
    return ids;
}

std::string fixed(double value, int decimals) {
    char text[400];
    std::snprintf(text, sizeof(text), "%.*f", decimals, value);
    return text;
}

}  // namespace gg::runner
