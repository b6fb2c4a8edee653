#include "compute.hpp"

#include <algorithm>
#include <fstream>
#include <limits>

#include "gg/core/error.hpp"
#include "gg/host/load.hpp"
#include "output.hpp"

namespace gg::runner {

namespace {

std::string check_device(const std::string& name) {
    const bool cuda = name.starts_with("cuda:") && name.size() > 5 && name.size() < 9 &&
                      name.find_first_not_of("0123456789", 5) == name.npos;
    if (cuda || name == "auto" || name == "host" || name == "cuda") return {};
    return "expected auto, host, cuda or cuda:N, found \"" + name + "\"";
}

}  // namespace

CLI::Validator number_range(double low, double high, const std::string& text) {
    return CLI::Validator(
        [low, high, text](std::string& word) {
            double value = 0;
            const bool good = CLI::detail::lexical_cast(word, value) && value >= low && value <= high;
            return good ? std::string() : "expected " + text + ", found " + word;
        },
        "");
}

void add_compute_options(CLI::App& command, ComputeOptions& options) {
    command.add_option("--device", options.device, "Where to run: auto, host, cuda or cuda:N")
        ->type_name("DEVICE")
        ->check(check_device);
    command.add_option("--threads", options.threads, "Host threads; any number gives the same result")
        ->type_name("N")
        ->default_str("all cores")
        ->check(number_range(1, 1024, "1 to 1024"));
}

void require_device(const ComputeOptions& options) {
    if (!options.device.starts_with("cuda")) return;
    throw Error(ErrorCode::invalid_request, {.field = "--device " + options.device,
                                             .expected = "a device of this build",
                                             .found = "no CUDA backend in it",
                                             .next_step = "Use --device host."});
}

std::unique_ptr<Model> load_model(const gguf::File& file, const ComputeOptions& options) {
    require_device(options);
    std::unique_ptr<Model> model = host::load_model(file, {.threads = options.threads});
    print_note("device: " + model->device());
    return model;
}

std::optional<std::uint64_t> session_memory(std::uint64_t weight_bytes) {
    std::ifstream file("/proc/meminfo");
    std::string key;
    for (std::uint64_t kibibytes = 0; file >> key >> kibibytes;
         file.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
        if (key != "MemAvailable:") continue;
        const std::uint64_t usable = kibibytes * 1024 / 20 * 19;  // the rest is for everything else
        return usable > weight_bytes ? usable - weight_bytes : 0;
    }
    return {};
}

int fitting_context(const Model& model, int wanted, std::optional<std::uint64_t> memory) {
    if (!memory || model.session_bytes(wanted) <= *memory) return wanted;
    int fits = 0, too_long = wanted;
    while (too_long - fits > 1) {
        const int middle = fits + (too_long - fits) / 2;
        (model.session_bytes(middle) <= *memory ? fits : too_long) = middle;
    }
    return fits;
}

void require_memory_to_score(const Model& model, int tokens, std::optional<std::uint64_t> memory,
                             const std::string& source, const std::string& next_step) {
    const int fits = fitting_context(model, tokens - 1, memory);
    if (fits >= tokens - 1) return;
    throw Error(ErrorCode::out_of_memory,
                {.file = source,
                 .expected = "at most " + std::to_string(fits + 1) + " tokens in the " + bytes_text(*memory) +
                             " that are left beside the weights",
                 .found = std::to_string(tokens) + " tokens, which need " +
                          bytes_text(model.session_bytes(tokens - 1)),
                 .next_step = next_step});
}

}  // namespace gg::runner
