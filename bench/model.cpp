// How fast does a GPU read prompts and decode with a model, and how near to what its memory gives?
//
// A percent of the ceiling is that of a machine which only reads what model_bytes.hpp counts, at the speed at
// which this GPU reads memory, measured in the same run.
#include <CLI/CLI.hpp>
#include <exception>
#include <string>
#include <vector>

#include "model_bench.hpp"
#include "option_values.hpp"

namespace {

using namespace gg;
using namespace gg::bench;
using Options = ModelBenchOptions;

constexpr const char* footer = R"(Tests, separated by commas:
  ppN     a prompt of N tokens read by an empty session, until its logits are on the host
  tgN@D   N tokens drawn and appended one by one behind D others
  tgNxS   the same of S sessions together, behind 16 tokens each; tokens of all sessions a second
  first@N milliseconds from giving an empty session N tokens to having the first drawn id on the host
  load    reading a file onto the GPU: GB/s while weights move, and seconds in all (files only)
  memory  device memory that the model took, and with the sessions of the tests, less CUDA's own

Tokens are drawn with the default sampling, seed 1; a test fails if all that were drawn are equal. Prompts are
random ids. bytes/token is what a token must read: weights in the file's format, of experts those chosen (of
several sessions: as many as evenly chosen ones would be on average), and cached keys and values. ceiling is
that at the speed of reading device memory, or of copying to it, measured in the same run. Each value is the
median of the repeats after one that is not counted; spread is the smallest and the largest.

Examples:
  gg-bench-model --preset gpt-oss-20b
  gg-bench-model --preset gpt2 --preset gpt2-xl --test pp512,tg128@0 --json bench/results/model.json
  gg-bench-model -m model.gguf --test load --threads 16 --upload-mib 16

Ctrl-C ends after the step at hand and prints what was measured. Exit codes: 0 done, 1 failed, 2 wrong usage.)";

std::vector<Subject> subjects_of(const Options& options) {
    std::vector<Subject> subjects;
    for (const std::string& preset : options.presets)
        subjects.push_back(Subject::preset(preset, options.experts));
    for (const std::string& path : options.files) subjects.push_back(Subject::of_file(path));
    return subjects;
}

void run(const Options& options, const std::vector<ModelTest>& tests, Origin origin) {
    if (!options.json.empty()) origin.commit = require_commit(options.commit, GG_SOURCE_DIR);
    const std::vector<Subject> subjects = subjects_of(options);
    const cuda::DeviceInfo device = cuda::find_devices().at(options.device);
    origin.device = device.name;
    cuda::check(cudaSetDevice(device.index), "choosing the device");
    runner::catch_interrupt();
    runner::print_note(
        "device: " + device.text() + ", " +
        bytes_text(device.total_bytes - std::min(device.total_bytes, cuda::free_device_memory())) +
        " of its memory in use, CUDA's own included");

    std::vector<Row> rows;
    std::exception_ptr failure;
    try {
        const double ceiling = read_ceiling(device, cuda::device_headers());
        rows.push_back({"device memory", "read", measure_of({ceiling}), "GB/s"});
        for (const Subject& subject : subjects) ModelBench(options, subject, ceiling, rows).run(tests);
    } catch (...) {
        failure = std::current_exception();
    }
    runner::write_output(table_text(rows, "bytes/token"));
    if (failure) std::rethrow_exception(failure);
    if (!options.json.empty()) write_json(options.json, origin, rows);
}

void add_options(CLI::App& app, Options& options) {
    app.add_option("--preset", options.presets,
                   "Shapes of a published model, random weights; again for several")
        ->type_name("NAME")
        ->default_str("")
        ->allow_extra_args(false)
        ->check(CLI::IsMember(
            std::vector<std::string>(std::begin(synthetic_presets), std::end(synthetic_presets))));
    app.add_option("--experts", options.experts, "Type of the presets' experts, in place of MXFP4")
        ->type_name("TYPE")
        ->check(CLI::IsMember({"Q8_0", "F16", "BF16"}));
    app.add_option("-m,--model", options.files, "A GGUF file; again for several")
        ->type_name("FILE")
        ->default_str("")
        ->allow_extra_args(false);
    app.add_option("--test", options.tests, "What to measure, separated by commas (see below)")
        ->type_name("LIST")
        ->check(CLI::Validator(
            [](std::string& list) {
                std::string unknown;
                return model_tests(list, unknown) ? std::string() : "there is no test \"" + unknown + "\"";
            },
            ""));
    app.add_option("--repeat", options.repeats, "Runs of each test that count")
        ->check(runner::number_range(1, 1000, "1 to 1000"));
    app.add_option("--device", options.device, "CUDA's number of the GPU")
        ->check(runner::number_range(0, 63, "0 to 63"));
    app.add_option("--threads", options.threads, "Host threads that load a file")
        ->default_str("all cores")
        ->check(runner::number_range(1, 1024, "1 to 1024"));
    app.add_option("--upload-mib", options.upload_mib,
                   "MiB of each of the four buffers that a file goes through")
        ->check(runner::number_range(1, 1024, "1 to 1024"));
    runner::add_vram_limit_option(app, options.vram_limit, "The most device memory to use");
    app.add_option("--json", options.json, "Add the rows to a file of results, in place of earlier ones")
        ->type_name("FILE");
    app.add_option("--commit", options.commit, "What was built, where git cannot tell, for --json")
        ->type_name("NAME");
    app.footer(footer);
}

int fail_with(const std::string& message, int code) {
    runner::print_error(message);
    return code;
}

}  // namespace

int main(int argc, char** argv) {
    runner::install_signal_handlers();
    Options options;
    CLI::App app(
        "Measures how fast a GPU runs models, as tokens a second and as a part of what its memory gives.",
        "gg-bench-model");
    app.option_defaults()->always_capture_default();
    add_options(app, options);
    try {
        app.parse(argc, argv);
        if (options.presets.empty() && options.files.empty()) throw CLI::RequiredError("--preset or -m");
    } catch (const CLI::CallForHelp&) {
        runner::write_output(app.help());
        return 0;
    } catch (const CLI::ParseError& error) {
        return fail_with(error.what() + std::string("\nSee gg-bench-model --help."), 2);
    }
    try {
        std::string unknown;
        run(options, *model_tests(options.tests, unknown), {{}, {}, command_text(argc, argv)});
        return 0;
    } catch (const runner::OutputClosed&) {
        return 0;
    } catch (const std::exception& error) {
        return fail_with(error.what(), 1);
    }
}
