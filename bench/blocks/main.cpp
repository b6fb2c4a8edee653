// gg-bench-blocks: every device block alone, beside what other libraries take for the same work.
#include <cuda_runtime_api.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "../results.hpp"
#include "bench.hpp"

namespace {

using namespace gg::bench;

constexpr const char* examples = R"(Examples:
  gg-bench-blocks                             everything
  gg-bench-blocks --list
  gg-bench-blocks --filter "decode: "         the ceiling is measured too
  gg-bench-blocks --filter "product: Q8_0" --json bench/results/blocks.json

Times are the medians of --rounds rounds of captured graphs. Exit codes: 0 done; 1 failed, a wrong output
among the failures; 2 wrong usage.)";

struct Options {
    Settings settings;
    std::string json, commit;
    int device = 0;
};

/// The device's name, and its index where it is not the first.
std::string device_text(const gg::cuda::DeviceInfo& device) {
    return device.name + (device.index > 0 ? " #" + std::to_string(device.index) : "");
}

void measure_all(Bench& bench) {
    bench_reads(bench);
    bench_products_ceiling(bench);
    bench_decode_1(bench);
    bench_decode_8(bench);
    bench_decode_attention(bench);
    bench_prefill_attention(bench);
    bench_dense_products(bench);
    bench_expert_products(bench);
    bench_rows(bench);
    bench_repack(bench);
    bench_sampler(bench);
}

int run(const Options& options, const std::string& command) {
    const gg::cuda::Devices devices = options.settings.list ? gg::cuda::Devices{} : gg::cuda::find_devices();
    const gg::cuda::DeviceInfo device =
        options.settings.list ? gg::cuda::DeviceInfo{} : devices.at(options.device);
    std::string commit;
    if (!options.json.empty()) commit = require_commit(options.commit, GG_SOURCE_DIR);
    Bench bench(options.settings, device);
    if (!options.settings.list) {
        gg::cuda::check(cudaSetDevice(device.index), "choosing the CUDA device");
        std::printf("%s, %d multiprocessors\n", device_text(device).c_str(), device.multiprocessors);
        if (device.multiprocessors != 132)
            std::fprintf(stderr, "note: the fused stages here are planned for 132 multiprocessors\n");
    }
    measure_all(bench);
    if (options.settings.list) return 0;
    if (bench.wanted() == 0) {
        std::fprintf(stderr, "gg-bench-blocks: no row has \"%s\" in its name; see --list\n",
                     options.settings.filter.c_str());
        return 2;
    }
    if (!options.json.empty()) write_json(options.json, {device_text(device), commit, command}, bench.rows());
    return bench.failed() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Measures every device block of gg alone.", "gg-bench-blocks");
    app.footer(examples);
    Options options;
    app.add_option("--filter", options.settings.filter, "Only rows with this text in \"block, shape\"");
    app.add_flag("--list", options.settings.list, "Print the rows' names and exit; needs no GPU");
    app.add_option("--rounds", options.settings.rounds, "Rounds of a measurement")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option("--json", options.json, "Write the rows to this file; rows of the same name are replaced");
    app.add_option("--commit", options.commit, "The commit that was built, where git cannot tell");
    app.add_option("--device", options.device, "Index of the GPU")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    try {
        return run(options, command_text(argc, argv));
    } catch (const std::exception& error) {
        std::fflush(stdout);
        std::fprintf(stderr, "gg-bench-blocks: %s\n", error.what());
        return 1;
    }
}
