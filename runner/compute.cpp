#include "compute.hpp"

#include <unistd.h>

#include "compute_cuda.hpp"
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

/// N of cuda:N.
std::optional<int> number_of(const std::string& device) {
    if (!device.starts_with("cuda:")) return {};
    return std::stoi(device.substr(5));
}

/// Whether this machine seems to have an NVIDIA GPU: its driver is loaded, or WSL passes one through.
bool sees_nvidia() {
    const auto exists = [](const char* path) { return ::access(path, F_OK) == 0; };
    return exists("/proc/driver/nvidia") || exists("/dev/nvidia0") || exists("/usr/lib/wsl/lib/libcuda.so.1");
}

/// A message with the way out that is always there.
std::string with_host(std::string message, bool has_remedy) {
    if (message.find("--device host") != message.npos) return message;
    if (!message.ends_with('.') && !message.ends_with('?')) message += '.';
    return message + (has_remedy ? " Or use --device host." : " Use --device host.");
}

/// Loads onto a GPU. A file that is wrong in itself is wrong on the host too; other failures name the host.
std::unique_ptr<Model> load_on_gpu_or_name_host(const gguf::File& file, int gpu) {
    try {
        return load_on_gpu(file, gpu);
    } catch (const Error& error) {
        if (error.code() == ErrorCode::model_load_failed) throw;
        throw Error(error.code(), with_host(error.what(), !error.mismatch().next_step.empty()));
    }
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
    command
        .add_option("--device", options.device,
                    "Where to run: auto (a GPU that gg can use, else the host), host, cuda or cuda:N")
        ->type_name("DEVICE")
        ->check(check_device);
    command.add_option("--threads", options.threads, "Host threads; any number gives the same result")
        ->type_name("N")
        ->default_str("all cores")
        ->check(number_range(1, 1024, "1 to 1024"));
}

DeviceChoice choose_device(const ComputeOptions& options) {
    DeviceChoice choice;
    choice.threads = options.threads;
    if (options.device == "host") return choice;
    const GpuSearch search = find_gpu(number_of(options.device));
    choice.gpu = search.gpu;
    if (search.gpu) return choice;
    const std::string why = search.remedy.empty() ? search.problem : search.problem + ". " + search.remedy;
    if (options.device != "auto")
        throw Error(ErrorCode::invalid_request,
                    with_host("--device " + options.device + ": " + why, !search.remedy.empty()));
    if (sees_nvidia()) choice.why_host = why;
    return choice;
}

std::unique_ptr<Model> load_model(const gguf::File& file, const DeviceChoice& device) {
    std::unique_ptr<Model> model = device.gpu ? load_on_gpu_or_name_host(file, *device.gpu)
                                              : host::load_model(file, {.threads = device.threads});
    print_note("device: " + model->device() +
               (device.why_host.empty() ? "" : "; the GPU is not used: " + device.why_host));
    return model;
}

int fitting_context(const Model& model, int wanted) {
    const auto memory = model.available_bytes();
    if (!memory || model.session_bytes(wanted) <= *memory) return wanted;
    int fits = 0, too_long = wanted;
    while (too_long - fits > 1) {
        const int middle = fits + (too_long - fits) / 2;
        (model.session_bytes(middle) <= *memory ? fits : too_long) = middle;
    }
    return fits;
}

std::string memory_left(const Model& model) {
    const auto memory = model.available_bytes();
    if (!memory) return {};
    return bytes_text(*memory) + " of " + std::string(model.memory_name()) +
           " that are left beside the weights";
}

void require_memory_to_score(const Model& model, int tokens, const std::string& source,
                             const std::string& next_step) {
    const int fits = fitting_context(model, tokens - 1);
    if (fits >= tokens - 1) return;
    throw Error(ErrorCode::out_of_memory,
                {.file = source,
                 .expected = "at most " + std::to_string(fits + 1) + " tokens in the " + memory_left(model),
                 .found = std::to_string(tokens) + " tokens, which need " +
                          bytes_text(model.session_bytes(tokens - 1)),
                 .next_step = next_step});
}

}  // namespace gg::runner
