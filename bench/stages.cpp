// Where does the time of a decoding step go? Kernels that note when their blocks ran say it, stage by stage.
//
// A stage's time is from the end of the stage before it to its own end, so that all add up to the step. Of
// it, `reach` passes until its first block has the results of the stage before. Weights that were fetched
// before that count into the stage all the same, so its GB/s can exceed the ceiling.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ceilings.hpp"
#include "gg/cuda/device_headers.hpp"
#include "gg/cuda/load.hpp"
#include "gg/cuda/stage_log.hpp"
#include "option_values.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "results.hpp"
#include "signals.hpp"
#include "subject.hpp"

namespace {

using namespace gg;
using namespace gg::bench;

struct Options {
    std::string preset, file, json, commit;
    int depth = 0, steps = 32, device = 0;
};

/// What was seen of the launches of one kernel, microseconds.
struct Stage {
    double bytes = 0;
    int launches = 0;  ///< of a step
    std::vector<double> time, reach, tail, early;
    std::vector<double> at[cuda::moments], block_end;
    unsigned crowd = 0;  ///< the most blocks of a launch on one multiprocessor
};

/// The launches of each step in their order; a step begins with the kernel that embeds the token.
std::vector<std::vector<cuda::LaunchTimes>> steps_of(const std::vector<cuda::LaunchTimes>& launches,
                                                     const std::string& first) {
    std::vector<std::vector<cuda::LaunchTimes>> steps;
    for (const cuda::LaunchTimes& launch : launches) {
        if (launch.name == first) steps.emplace_back();
        if (!steps.empty()) steps.back().push_back(launch);
    }
    return steps;
}

void report(const std::vector<cuda::LaunchTimes>& launches, const cuda::StageLog& log, double ceiling,
            const std::string& model, std::vector<Row>& rows) {
    std::map<std::string, double> bytes;
    for (const cuda::ChainKernel& kernel : log.chain()) bytes[kernel.name] = kernel.bytes;
    std::vector<std::string> order;
    std::map<std::string, Stage> stages;
    std::vector<double> totals;
    auto steps = steps_of(launches, log.chain().front().name);
    if (steps.size() > 2) steps = {steps.begin() + 1, steps.end() - 1};
    for (const auto& step : steps) {
        totals.push_back(static_cast<double>(step.back().end - step.front().begin) / 1e3);
        std::map<std::string, int> count;
        for (std::size_t i = 0; i < step.size(); ++i) {
            const cuda::LaunchTimes& launch = step[i];
            const std::uint64_t before = i == 0 ? launch.begin : step[i - 1].end;
            const auto from = [&](std::uint64_t begin, std::uint64_t end) {
                return (static_cast<double>(end) - static_cast<double>(begin)) / 1e3;
            };
            if (stages.find(launch.name) == stages.end()) order.push_back(launch.name);
            Stage& stage = stages[launch.name];
            stage.bytes = bytes[launch.name];
            stage.launches = std::max(stage.launches, ++count[launch.name]);
            stage.time.push_back(from(before, launch.end));
            stage.reach.push_back(from(before, launch.waited));
            stage.tail.push_back(from(launch.first_end, launch.end));
            stage.early.push_back(from(launch.begin, before));
            for (int m = 0; m < cuda::moments; ++m) stage.at[m].push_back(launch.at[m] / 1e3);
            stage.block_end.push_back(launch.block_end / 1e3);
            stage.crowd = std::max(stage.crowd, launch.crowd);
        }
    }
    std::printf("%-28s %5s %5s %7s %6s %6s %6s %6s %6s %6s %6s %6s %6s %8s %6s %7s\n", "stage, microseconds",
                "times", "crowd", "time", "early", "reach", "ready", "fetch", "mult", "toget", "store", "end",
                "tail", "MB", "GB/s", "a step");
    for (const std::string& name : order) {
        const Stage& s = stages[name];
        const double time = measure_of(s.time).median;
        std::printf("%-28s %5d %5u %7.2f", name.c_str(), s.launches, s.crowd, time);
        for (const std::vector<double>* values :
             {&s.early, &s.reach, &s.at[cuda::ready], &s.at[cuda::fetched], &s.at[cuda::multiplied],
              &s.at[cuda::together], &s.at[cuda::stored], &s.block_end, &s.tail})
            std::printf(" %6.2f", measure_of(*values).median);
        std::printf(" %8.3f %6.0f %7.1f\n", s.bytes / 1e6, s.bytes / time / 1e3, time * s.launches);
        Row row{model, "stage " + name, measure_of(s.time), "us", s.bytes, {}};
        if (s.bytes > 0) row.ceiling = s.bytes / ceiling / 1e3;
        rows.push_back(row);
    }
    rows.push_back({model, "step with noted times", measure_of(totals), "us"});
    std::printf("%-28s %27.1f, median of %zu\n", "step", measure_of(totals).median, totals.size());
}

void run(const Options& options, Origin origin) {
    if (!options.json.empty()) origin.commit = require_commit(options.commit, GG_SOURCE_DIR);
    const cuda::DeviceInfo device = cuda::find_devices().at(options.device);
    origin.device = device.name;
    cuda::check(cudaSetDevice(device.index), "choosing the device");
    const Subject subject =
        options.preset.empty() ? Subject::of_file(options.file) : Subject::preset(options.preset);
    const double ceiling = read_ceiling(device, cuda::device_headers());
    cuda::StageLog log;
    cuda::LoadOptions loading;
    loading.device = options.device;
    loading.headers = cuda::device_headers();
    loading.synthetic = subject.synthetic ? &*subject.synthetic : nullptr;
    loading.stage_log = &log;
    const std::unique_ptr<Model> model = cuda::load_model(subject.file(), loading);
    const int prompt = std::max(options.depth, 16);
    const auto session = model->session(prompt + options.steps + 16);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < prompt; ++i) ids.push_back(i * 7919 % model->info().dims.vocabulary);
    session->set_sampling({}, {});
    session->prefill(ids);
    for (int i = 0; i < 8; ++i) session->decode();
    session->logits();
    log.take();
    for (int i = 0; i < options.steps; ++i) session->decode();
    session->logits();
    std::vector<Row> rows;
    report(log.take(), log, ceiling, subject.name, rows);
    std::printf("reading device memory: %.1f GB/s\n", ceiling);
    if (!options.json.empty()) write_json(options.json, origin, rows);
}

}  // namespace

int main(int argc, char** argv) {
    runner::install_signal_handlers();
    Options options;
    CLI::App app("Measures the stages of a decoding step by times that the kernels note.", "gg-bench-stages");
    app.option_defaults()->always_capture_default();
    app.add_option("--preset", options.preset, "Shapes of a published model, random weights")
        ->check(CLI::IsMember(
            std::vector<std::string>(std::begin(synthetic_presets), std::end(synthetic_presets))));
    app.add_option("-m,--model", options.file, "A GGUF file");
    app.add_option("--depth", options.depth, "Tokens in front")
        ->check(runner::number_range(0, 1e6, "0 or more"));
    app.add_option("--steps", options.steps, "Steps")->check(runner::number_range(3, 200, "3 to 200"));
    app.add_option("--device", options.device, "CUDA's number of the GPU")
        ->check(runner::number_range(0, 63, "0 to 63"));
    app.add_option("--json", options.json, "Add the rows to a file of results")->type_name("FILE");
    app.add_option("--commit", options.commit, "What was built, where git cannot tell")->type_name("NAME");
    try {
        app.parse(argc, argv);
        if (options.preset.empty() == options.file.empty())
            throw CLI::RequiredError("one of --preset and -m");
    } catch (const CLI::CallForHelp&) {
        runner::write_output(app.help());
        return 0;
    } catch (const CLI::ParseError& error) {
        runner::print_error(error.what() + std::string("\nSee gg-bench-stages --help."));
        return 2;
    }
    try {
        run(options, {{}, {}, command_text(argc, argv)});
        return 0;
    } catch (const std::exception& error) {
        runner::print_error(error.what());
        return 1;
    }
}
