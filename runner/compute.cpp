#include "compute.hpp"

#include "commands.hpp"
#include "compute_cuda.hpp"
#include "gg/core/error.hpp"
#include "gg/inference.hpp"
#include "output.hpp"
#include "progress.hpp"

namespace gg::runner {

namespace {

std::string check_device(const std::string& name) {
    if (is_device_name(name)) return {};
    return "expected auto, host, cuda or cuda:N, found \"" + name + "\"";
}

/// A message with the way out that is always there.
std::string with_host(std::string message, bool has_remedy) {
    if (message.find("--device host") != message.npos) return message;
    if (!message.ends_with('.') && !message.ends_with('?')) message += '.';
    return message + (has_remedy ? " Or use --device host." : " Use --device host.");
}

/// Loads with progress on standard error. On a GPU a file that is wrong in itself is wrong on the host too;
/// other failures name the host.
std::unique_ptr<Model> load_with_progress(const gguf::File& file, const DeviceChoice& device) {
    StepsProgress progress;
    const LoadOptions options{.threads = device.threads,
                              .progress = [&](std::string_view what, std::uint64_t done,
                                              std::uint64_t total) { progress.update(what, done, total); },
                              .note =
                                  [&](const std::string& text) {
                                      progress.wipe();
                                      print_note(text);
                                  }};
    try {
        return gg::load_model(file, device.place, gpu_backend(device.memory_limit), options);
    } catch (const Error& error) {
        if (!device.place.gpu || error.code() == ErrorCode::model_load_failed) throw;
        throw Error(error.code(), with_host(error.what(), !error.mismatch().next_step.empty()));
    }
}

}  // namespace

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
    add_vram_limit_option(
        command, options.vram_limit,
        "The most GPU memory to use, all that gg takes counted; what does not fit is refused. "
        "Not with --device host; without effect if auto chooses the host");
}

DeviceChoice choose_device(const ComputeOptions& options) {
    if (options.device == "host" && options.vram_limit > 0)
        throw UsageError("--vram-limit limits the memory of a GPU: it excludes --device host");
    try {
        return {.place = gg::choose_device(options.device, gpu_backend()),
                .memory_limit = options.vram_limit,
                .threads = options.threads};
    } catch (const Error& error) {
        throw Error(error.code(),
                    with_host("--" + std::string(error.what()), !error.mismatch().next_step.empty()));
    }
}

std::unique_ptr<Model> load_model(const gguf::File& file, const DeviceChoice& device) {
    std::unique_ptr<Model> model = load_with_progress(file, device);
    const std::string& why_host = device.place.why_host;
    print_note("device: " + model->device() + (why_host.empty() ? "" : "; the GPU is not used: " + why_host));
    return model;
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
