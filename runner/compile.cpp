// gg compile: the kernels of a model for named architectures, into the cache, without a GPU.

#include <algorithm>
#include <cctype>
#include <chrono>
#include <memory>
#include <optional>

#include "commands.hpp"
#include "gg/core/error.hpp"
#include "model_file.hpp"
#include "option_values.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "signals.hpp"

#if defined(GG_WITH_CUDA)
#include "gg/cuda/device.hpp"
#include "gg/cuda/device_headers.hpp"
#include "gg/cuda/kernel_cache.hpp"
#include "gg/cuda/model_units.hpp"
#endif

namespace gg::runner {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
    ModelFileOptions model;
    std::vector<std::string> architectures;
    int multiprocessors = 0;  ///< 0: as the GPU here has, or the usual number
    bool json = false;
};

#if defined(GG_WITH_CUDA)

/// Multiprocessors of the usual chip of an architecture: A100, RTX 4090, H100 SXM, RTX 5090; 0 for others.
int usual_multiprocessors(const std::string& architecture) {
    if (architecture == "sm_80") return 108;
    if (architecture == "sm_89") return 128;
    if (architecture == "sm_90a") return 132;
    if (architecture == "sm_120a") return 170;
    return 0;
}

cuda::Target target_for(const std::string& architecture, int multiprocessors, const cuda::Devices& devices) {
    cuda::Target target{architecture, multiprocessors};
    for (const cuda::DeviceInfo& device : devices.usable)
        if (target.multiprocessors == 0 && device.architecture() == architecture)
            target.multiprocessors = device.multiprocessors;
    if (target.multiprocessors == 0) target.multiprocessors = usual_multiprocessors(architecture);
    if (target.multiprocessors == 0)
        throw UsageError("--multiprocessors is needed for " + architecture +
                         ": how many such a chip has differs");
    return target;
}

/// The architectures asked for, or else those of the GPUs here; each once.
std::vector<cuda::Target> choose_targets(const Options& options) {
    const cuda::Devices devices = cuda::find_devices();
    std::vector<cuda::Target> targets;
    const auto add = [&](const cuda::Target& target) {
        const auto same = [&](const cuda::Target& other) {
            return other.architecture == target.architecture &&
                   other.multiprocessors == target.multiprocessors;
        };
        if (std::none_of(targets.begin(), targets.end(), same)) targets.push_back(target);
    };
    for (const std::string& name : options.architectures)
        add(target_for(name, options.multiprocessors, devices));
    if (!targets.empty()) return targets;
    for (const cuda::DeviceInfo& device : devices.usable)
        add({device.architecture(),
             options.multiprocessors > 0 ? options.multiprocessors : device.multiprocessors});
    if (targets.empty()) throw UsageError("--arch is needed: " + devices.problem);
    return targets;
}

std::vector<cuda::CompiledUnit> compile_for(const gguf::File& file, const cuda::Target& target,
                                            cuda::KernelCache& cache) {
    const std::vector<cuda::CompileUnit> units = cuda::model_units(file, target);
    Progress progress("compiling kernels for " + target.architecture, units.size());
    return cache.load(units, target.architecture,
                      [&](std::size_t done, std::size_t, const std::string& name) {
                          if (interrupted())
                              throw Error(ErrorCode::cancelled, "interrupted; what was compiled is kept");
                          progress.update(done, name);
                      });
}

Json describe(const cuda::Target& target, const std::vector<cuda::CompiledUnit>& units, double seconds) {
    Json rows = Json::array();
    for (const cuda::CompiledUnit& unit : units) {
        Json kernels = Json::array();
        for (const cuda::KernelReport& kernel : unit.kernels)
            kernels.push_back({{"name", kernel.name},
                               {"registers", kernel.registers},
                               {"spill_bytes", kernel.spill_bytes},
                               {"stack_bytes", kernel.stack_bytes},
                               {"shared_bytes", kernel.shared_bytes}});
        rows.push_back({{"name", unit.name},
                        {"cached", unit.cached},
                        {"cubin_bytes", unit.cubin.size()},
                        {"kernels", kernels}});
    }
    return {{"architecture", target.architecture},
            {"multiprocessors", target.multiprocessors},
            {"seconds", seconds},
            {"units", rows}};
}

std::string column(const Json& number, std::size_t width) {
    const std::string text = number.dump();
    return std::string(width - std::min(width, text.size()), ' ') + text;
}

std::string as_text(const Json& target) {
    std::size_t compiled = 0, width = 6;
    for (const Json& unit : target["units"]) {
        if (!unit["cached"].get<bool>()) ++compiled;
        for (const Json& kernel : unit["kernels"])
            width = std::max(width, kernel["name"].get_ref<const std::string&>().size());
    }
    std::string text = target["architecture"].get<std::string>() + ", " + target["multiprocessors"].dump() +
                       " multiprocessors: " + std::to_string(compiled) + " of " +
                       std::to_string(target["units"].size()) + " units compiled in " +
                       fixed(target["seconds"].get<double>(), 2) + " s, the others were in the cache\n";
    std::string head = "  kernel";
    head.resize(width + 4, ' ');
    text += head + "registers  spilled bytes  stack bytes  static shared bytes\n";
    for (const Json& unit : target["units"])
        for (const Json& kernel : unit["kernels"]) {
            std::string name = "  " + kernel["name"].get<std::string>();
            name.resize(width + 4, ' ');
            text += name + column(kernel["registers"], 9) + column(kernel["spill_bytes"], 15) +
                    column(kernel["stack_bytes"], 13) + column(kernel["shared_bytes"], 21) + "\n";
        }
    return text;
}

void compile(const Options& options) {
    const gguf::File file = open_model_file(options.model);
    const std::vector<cuda::Target> targets = choose_targets(options);
    catch_interrupt();
    cuda::KernelCacheOptions cache_options;
    cache_options.note = print_note;
    const std::filesystem::path folder = cache_options.folder;
    cuda::KernelCache cache(cuda::device_headers(), std::move(cache_options));
    Json rows = Json::array();
    for (const cuda::Target& target : targets) {
        const auto begin = std::chrono::steady_clock::now();
        const std::vector<cuda::CompiledUnit> units = compile_for(file, target, cache);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
        rows.push_back(describe(target, units, time.count()));
        if (!options.json) write_output(as_text(rows.back()));
    }
    if (options.json)
        print_json({{"model", options.model.path}, {"cache", folder.string()}, {"targets", rows}});
}

#else

void compile(const Options&) {
    throw Error(ErrorCode::invalid_request, {.field = "gg compile",
                                             .found = "no CUDA backend in this build",
                                             .next_step = "Build gg where the CUDA toolkit is installed."});
}

#endif

/// Accepts sm_ and a number, with a letter or not.
std::string check_architecture(const std::string& name) {
    const std::size_t digits = name.find_first_not_of("0123456789", 3);
    const bool letter =
        digits + 1 == name.size() && std::islower(static_cast<unsigned char>(name[digits])) != 0;
    const bool good =
        name.starts_with("sm_") && name.size() >= 5 && digits != 3 && (digits == name.npos || letter);
    return good ? std::string() : "expected a name such as sm_90a, found \"" + name + "\"";
}

}  // namespace

void add_compile(CLI::App& app, Action& action) {
    CLI::App* command = app.add_subcommand("compile", "Compile a model's GPU kernels ahead of time");
    const auto options = std::make_shared<Options>();
    command
        ->add_option("MODEL,-m,--model", options->model.path,
                     "The model: a GGUF file, or the first part of a split one")
        ->required();
    add_sha256_option(*command, options->model);
    command
        ->add_option(
            "--arch", options->architectures,
            "Architectures to compile for: sm_80, sm_89, sm_90a, sm_120a ...; give it again, or separate "
            "by commas, for several")
        ->type_name("ARCH")
        ->default_str("those of the GPUs here")
        ->allow_extra_args(false)
        ->delimiter(',')
        ->check(CLI::Validator([](std::string& name) { return check_architecture(name); }, ""));
    command
        ->add_option("--multiprocessors", options->multiprocessors,
                     "Multiprocessors of the chip, for which work is divided")
        ->type_name("N")
        ->default_str("those of the GPU here, or of the usual chip")
        ->check(number_range(1, 1024, "1 to 1024"));
    command->add_flag("--json", options->json, "Print JSON");
    command->footer(
        "Needs NVRTC (pip install nvidia-cuda-nvrtc, or the CUDA toolkit), no GPU. The kernels are kept in\n"
        "$XDG_CACHE_HOME/gg/kernels (~/.cache/gg/kernels), where gg run finds them on a chip of that "
        "architecture\n"
        "and number of multiprocessors. The usual chips: sm_80 108 (A100), sm_89 128 (RTX 4090), sm_90a 132\n"
        "(H100 SXM), sm_120a 170 (RTX 5090). A spilled byte is a part of a register that is kept in memory.");
    command->callback([options, &action] { action = {[options] { compile(*options); }, options->json}; });
}

}  // namespace gg::runner
