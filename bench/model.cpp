// How fast does a GPU read prompts and decode with a model, and how near to what its memory gives?
//
// A percent of the ceiling is that of a machine which only reads what model_bytes.hpp counts, at the speed at
// which this GPU reads memory, measured in the same run.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ceilings.hpp"
#include "gg/cuda/device_headers.hpp"
#include "gg/cuda/load.hpp"
#include "gg/model/synthesize.hpp"
#include "model_bytes.hpp"
#include "model_tests.hpp"
#include "option_values.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "results.hpp"
#include "signals.hpp"

namespace {

using namespace gg;
using namespace gg::bench;
using runner::print_note;
using Clock = std::chrono::steady_clock;
using Ids = std::vector<std::int32_t>;

constexpr const char* footer = R"(Tests, separated by commas:
  ppN     a prompt of N tokens read by an empty session, until its logits are on the host
  tgN@D   N tokens drawn and appended one by one behind D others
  tgNxS   the same of S sessions together, behind 16 tokens each; tokens of all sessions a second
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

struct Options {
    std::vector<std::string> presets, files;
    std::string tests = default_tests, json, commit;
    int repeats = 5, device = 0, threads = 0, upload_mib = 8;
    std::uint64_t vram_limit = 0;
};

double seconds_between(Clock::time_point begin, Clock::time_point end) {
    return std::chrono::duration<double>(end - begin).count();
}

void stop_if_interrupted() {
    if (runner::interrupted())
        throw Error(ErrorCode::cancelled, "interrupted; the table has what was measured");
}

[[noreturn]] void fail(const std::string& field, const std::string& expected, const std::string& found) {
    throw Error(ErrorCode::internal,
                {.file = {}, .field = field, .expected = expected, .found = found, .next_step = {}});
}

Ids random_ids(int count, unsigned sequence, int vocabulary) {
    Ids ids;
    for (int i = 0; i < count; ++i) {
        const text::RandomWords words = text::philox({{static_cast<unsigned>(i), sequence, 0, 0}}, 1, 2);
        ids.push_back(static_cast<std::int32_t>(words.word[0] % static_cast<unsigned>(vocabulary)));
    }
    return ids;
}

text::SamplerOptions sampling(unsigned sequence) {
    text::SamplerOptions options;
    options.seed = 1 + sequence;
    return options;
}

/// A model to measure: a preset, or a file.
struct Subject {
    std::string name;
    std::optional<SyntheticFile> synthetic;
    std::optional<gguf::File> opened;

    const gguf::File& file() const { return synthetic ? synthetic->file() : *opened; }
};

/// What loading was seen to do, with its progress on standard error.
class Loading {
  public:
    void update(std::string_view what, std::uint64_t done, std::uint64_t total) {
        stop_if_interrupted();
        progress_.update(what, done, total);
        if (what != "loading") return;
        end_ = {Clock::now(), done};
        if (!begin_) begin_ = end_;
    }
    void note(const std::string& text) {
        progress_.wipe();
        print_note(text);
    }
    /// GB/s from the first piece of the weights to the last; nothing if there was one alone.
    std::optional<double> speed() const {
        if (!begin_ || end_.bytes == begin_->bytes) return {};
        return static_cast<double>(end_.bytes - begin_->bytes) / seconds_between(begin_->time, end_.time) /
               1e9;
    }

  private:
    struct Moment {
        Clock::time_point time;
        std::uint64_t bytes = 0;
    };
    runner::StepsProgress progress_;
    std::optional<Moment> begin_;
    Moment end_;
};

/// Runs the tests of one model.
class ModelBench {
  public:
    ModelBench(const Options& options, const Subject& subject, double read_ceiling, std::vector<Row>& rows)
        : options_(options),
          subject_(subject),
          read_ceiling_(read_ceiling),
          rows_(rows),
          free_before_(cuda::free_device_memory()),
          least_free_(free_before_) {}

    void run(const std::vector<ModelTest>& tests) {
        const auto wants = [&](ModelTest::Kind kind) {
            return std::any_of(tests.begin(), tests.end(),
                               [&](const ModelTest& t) { return t.kind == kind; });
        };
        if (wants(ModelTest::load) && subject_.opened)
            load_repeatedly();
        else
            load();
        const std::uint64_t loaded = free_before_ - std::min(free_before_, cuda::free_device_memory());
        bytes_.emplace(subject_.file(), model_->info().dims);
        for (const ModelTest& test : tests) run(test);
        if (!wants(ModelTest::memory)) return;
        constexpr double gibibyte = 1 << 30;
        add("memory loaded", {static_cast<double>(loaded) / gibibyte}, "GiB");
        add("memory peak", {static_cast<double>(free_before_ - least_free_) / gibibyte}, "GiB");
    }

  private:
    Row& add(const std::string& test, const std::vector<double>& values, const std::string& unit) {
        rows_.push_back({subject_.name, test, measure_of(values), unit});
        return rows_.back();
    }
    void add_decoding(const std::string& test, const std::vector<double>& values, double bytes) {
        Row& row = add(test, values, "tok/s");
        row.bytes = bytes;
        row.ceiling = read_ceiling_ * 1e9 / bytes;
    }

    /// The speed of its weights, GB/s, if it took long enough to tell.
    std::optional<double> load() {
        Loading loading;
        model_.reset();
        cuda::LoadOptions options;
        options.device = options_.device;
        options.memory_limit = options_.vram_limit;
        options.threads = options_.threads;
        options.headers = cuda::device_headers();
        options.synthetic = subject_.synthetic ? &*subject_.synthetic : nullptr;
        options.upload_bytes = static_cast<std::size_t>(options_.upload_mib) << 20;
        options.progress = [&](std::string_view what, std::uint64_t done, std::uint64_t total) {
            loading.update(what, done, total);
        };
        options.note = [&](const std::string& text) {
            if (rows_.empty() || rows_.back().model != subject_.name) loading.note(text);
        };
        model_ = cuda::load_model(subject_.file(), options);
        return loading.speed();
    }

    void load_repeatedly() {
        std::vector<double> speeds, times;
        const double bus = bus_ceiling();
        for (int i = 0; i <= options_.repeats; ++i) {
            announce("load", i);
            model_.reset();
            const Clock::time_point begin = Clock::now();
            const std::optional<double> speed = load();
            const double seconds = seconds_between(begin, Clock::now());
            if (i == 0) continue;
            times.push_back(seconds);
            if (speed) speeds.push_back(*speed);
        }
        if (!speeds.empty()) add("load", speeds, "GB/s").ceiling = bus;
        add("load", times, "s");
    }

    void announce(const std::string& test, int repeat) const {
        stop_if_interrupted();
        if (repeat == 0) print_note(subject_.name + ": " + test);
    }

    void run(const ModelTest& test) {
        switch (test.kind) {
            case ModelTest::prompt:
                return prompt(test);
            case ModelTest::decode:
                return decode(test);
            case ModelTest::decode_many:
                return decode_many(test);
            default:
                if (test.kind == ModelTest::load && !subject_.opened)
                    print_note(subject_.name + ": load is skipped: there is no file");
        }
    }

    /// Sessions of `context` tokens; none, with a note, if the model or the memory has no room.
    std::vector<std::unique_ptr<Session>> sessions(const ModelTest& test, int context) {
        std::vector<std::unique_ptr<Session>> made;
        const auto skip = [&](const std::string& why) {
            print_note(subject_.name + ": " + test.name + " is skipped: " + why);
            made.clear();
        };
        const int most = model_->info().dims.context;
        if (context > most) {
            skip("its " + std::to_string(context) + " tokens are more than the model's " +
                 std::to_string(most));
            return made;
        }
        for (int i = 0; i < test.sequences; ++i) {
            const auto available = model_->available_bytes();
            if (available && model_->session_bytes(context) > *available) {
                skip("its sessions do not fit into the device's memory");
                return made;
            }
            made.push_back(model_->session(context));
            made.back()->set_sampling(sampling(static_cast<unsigned>(i)), {});
        }
        least_free_ = std::min(least_free_, cuda::free_device_memory());
        return made;
    }

    Ids ids(int count, int sequence = 0) const {
        return random_ids(count, static_cast<unsigned>(sequence), model_->info().dims.vocabulary);
    }

    static void require_finite(std::span<const float> logits) {
        for (const float logit : logits)
            if (!std::isfinite(logit)) fail("logits", "numbers", std::to_string(logit));
    }
    static void require_different(const Ids& drawn, const std::string& what) {
        const std::set<std::int32_t> different(drawn.begin(), drawn.end());
        if (drawn.size() > 8 && different.size() < 2)
            fail(what, "different ids", std::to_string(drawn.size()) + " times " + std::to_string(drawn[0]));
    }

    void prompt(const ModelTest& test) {
        const auto made = sessions(test, test.tokens);
        if (made.empty()) return;
        const Ids tokens = ids(test.tokens);
        std::vector<double> speeds;
        for (int i = 0; i <= options_.repeats; ++i) {
            announce(test.name, i);
            made[0]->reset();
            const Clock::time_point begin = Clock::now();
            made[0]->prefill(tokens);
            const std::span<const float> logits = made[0]->logits();
            const double seconds = seconds_between(begin, Clock::now());
            require_finite(logits);
            if (i > 0) speeds.push_back(test.tokens / seconds);
        }
        least_free_ = std::min(least_free_, cuda::free_device_memory());
        add(test.name, speeds, "tok/s");
    }

    /// Seconds of `count` steps. One step before: when it returns, those before it are done, and so at the
    /// end.
    template <class Step>
    static double time_steps(int count, Step&& step) {
        step();
        const Clock::time_point begin = Clock::now();
        for (int i = 0; i < count; ++i) {
            stop_if_interrupted();
            step();
        }
        return seconds_between(begin, Clock::now());
    }

    /// Places of a repeat: a step that is not counted, and those that are.
    static int places(const ModelTest& test) { return test.tokens + 1; }

    void decode(const ModelTest& test) {
        // A long beginning is read once, and every repeat goes on behind the one before.
        const bool goes_on = test.depth >= 1024;
        const int before = std::max(test.depth, 1), runs = options_.repeats + 1;
        const auto made = sessions(test, before + places(test) * (goes_on ? runs : 1));
        if (made.empty()) return;
        const Ids tokens = ids(before);
        Session& session = *made[0];
        std::vector<double> speeds;
        Ids drawn;
        double depths = 0;
        for (int i = 0; i < runs; ++i) {
            announce(test.name, i);
            if (i == 0 || !goes_on) {
                session.reset();
                session.prefill(tokens);
            }
            const double seconds = time_steps(test.tokens, [&] { drawn.push_back(session.decode()); });
            if (i == 0) continue;
            speeds.push_back(test.tokens / seconds);
            depths += (session.position() - test.tokens / 2.0) / options_.repeats;
        }
        require_different(drawn, test.name);
        add_decoding(test.name, speeds, bytes_->token(1, depths));
    }

    void decode_many(const ModelTest& test) {
        if (test.sequences > model_->batch()) {
            print_note(subject_.name + ": " + test.name + " is skipped: the model decodes at most " +
                       std::to_string(model_->batch()) + " sessions together");
            return;
        }
        const auto made = sessions(test, test.depth + places(test));
        if (made.empty()) return;
        std::vector<Session*> all;
        for (const auto& session : made) all.push_back(session.get());
        std::vector<double> speeds;
        std::vector<Ids> drawn(made.size());
        for (int i = 0; i <= options_.repeats; ++i) {
            announce(test.name, i);
            for (std::size_t s = 0; s < all.size(); ++s) {
                all[s]->reset();
                all[s]->prefill(ids(test.depth, static_cast<int>(s)));
            }
            const double seconds = time_steps(test.tokens, [&] {
                const std::vector<Decoded> step = model_->decode(all);
                for (std::size_t s = 0; s < all.size(); ++s) {
                    if (step[s].error) throw *step[s].error;
                    drawn[s].push_back(step[s].id);
                }
            });
            if (i > 0) speeds.push_back(test.tokens * test.sequences / seconds);
        }
        for (const Ids& ids : drawn) require_different(ids, test.name);
        if (drawn.size() > 1 && test.tokens > 8 && drawn[0] == drawn[1])
            fail(test.name, "sessions that draw different ids", "the same in two of them");
        add_decoding(test.name, speeds, bytes_->token(test.sequences, test.depth + test.tokens / 2.0));
    }

    const Options& options_;
    const Subject& subject_;
    double read_ceiling_;
    std::vector<Row>& rows_;
    std::uint64_t free_before_, least_free_;
    std::unique_ptr<Model> model_;
    std::optional<ModelBytes> bytes_;
};

/// The files are opened before anything is measured, so that a wrong name costs no time.
std::vector<Subject> subjects_of(const Options& options) {
    std::vector<Subject> subjects;
    for (const std::string& preset : options.presets)
        subjects.push_back({preset, SyntheticFile::of_preset(preset), {}});
    for (const std::string& path : options.files)
        subjects.push_back({std::filesystem::path(path).stem().string(), {}, gguf::File::open(path)});
    return subjects;
}

void run(const Options& options, const std::vector<ModelTest>& tests, Origin origin) {
    if (!options.json.empty()) origin.commit = require_commit(options.commit, GG_SOURCE_DIR);
    const std::vector<Subject> subjects = subjects_of(options);
    const cuda::DeviceInfo device = cuda::find_devices().at(options.device);
    origin.device = device.name;
    cuda::check(cudaSetDevice(device.index), "choosing the device");
    runner::catch_interrupt();
    print_note("device: " + device.text() + ", " +
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
