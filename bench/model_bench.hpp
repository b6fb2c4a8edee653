// The tests of gg-bench-model on one model: loading, reading prompts, decoding, memory.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ceilings.hpp"
#include "gg/cuda/device_headers.hpp"
#include "gg/cuda/load.hpp"
#include "model_bytes.hpp"
#include "model_tests.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "results.hpp"
#include "signals.hpp"
#include "subject.hpp"

namespace gg::bench {

using Clock = std::chrono::steady_clock;
using Ids = std::vector<std::int32_t>;

/// What the command line asks for.
struct ModelBenchOptions {
    std::vector<std::string> presets, files;
    std::string experts, tests = default_tests, json, commit;
    int repeats = 5, device = 0, threads = 0, upload_mib = 8;
    std::uint64_t vram_limit = 0;
};

inline double seconds_between(Clock::time_point begin, Clock::time_point end) {
    return std::chrono::duration<double>(end - begin).count();
}

inline void stop_if_interrupted() {
    if (runner::interrupted())
        throw Error(ErrorCode::cancelled, "interrupted; the table has what was measured");
}

[[noreturn]] inline void fail(const std::string& field, const std::string& expected,
                              const std::string& found) {
    throw Error(ErrorCode::internal,
                {.file = {}, .field = field, .expected = expected, .found = found, .next_step = {}});
}

inline Ids random_ids(int count, unsigned sequence, int vocabulary) {
    Ids ids;
    for (int i = 0; i < count; ++i) {
        const text::RandomWords words = text::philox({{static_cast<unsigned>(i), sequence, 0, 0}}, 1, 2);
        ids.push_back(static_cast<std::int32_t>(words.word[0] % static_cast<unsigned>(vocabulary)));
    }
    return ids;
}

inline text::SamplerOptions sampling(unsigned sequence) {
    text::SamplerOptions options;
    options.seed = 1 + sequence;
    return options;
}

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
        runner::print_note(text);
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
    ModelBench(const ModelBenchOptions& options, const Subject& subject, double read_ceiling,
               std::vector<Row>& rows)
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
        if (repeat == 0) runner::print_note(subject_.name + ": " + test);
    }

    void run(const ModelTest& test) {
        switch (test.kind) {
            case ModelTest::prompt:
                return prompt(test);
            case ModelTest::decode:
                return decode(test);
            case ModelTest::decode_many:
                return decode_many(test);
            case ModelTest::first:
                return first(test);
            default:
                if (test.kind == ModelTest::load && !subject_.opened)
                    runner::print_note(subject_.name + ": load is skipped: there is no file");
        }
    }

    /// Sessions of `context` tokens; none, with a note, if the model or the memory has no room.
    std::vector<std::unique_ptr<Session>> sessions(const ModelTest& test, int context) {
        std::vector<std::unique_ptr<Session>> made;
        const auto skip = [&](const std::string& why) {
            runner::print_note(subject_.name + ": " + test.name + " is skipped: " + why);
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

    /// How long a user of a loaded model waits for the first token behind a prompt.
    void first(const ModelTest& test) {
        const auto made = sessions(test, test.tokens);
        if (made.empty()) return;
        const Ids tokens = ids(test.tokens);
        std::vector<double> times;
        std::int32_t drawn = -1;
        for (int i = 0; i <= options_.repeats; ++i) {
            announce(test.name, i);
            made[0]->reset();
            const Clock::time_point begin = Clock::now();
            made[0]->prefill(tokens);
            const std::int32_t id = made[0]->sample();
            const double seconds = seconds_between(begin, Clock::now());
            if (i > 0) times.push_back(1e3 * seconds);
            if (i > 0 && id != drawn)
                fail(test.name, "the same id from the same seed, " + std::to_string(drawn),
                     std::to_string(id));
            drawn = id;
        }
        least_free_ = std::min(least_free_, cuda::free_device_memory());
        add(test.name, times, "ms");
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
            runner::print_note(subject_.name + ": " + test.name + " is skipped: the model decodes at most " +
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

    const ModelBenchOptions& options_;
    const Subject& subject_;
    double read_ceiling_;
    std::vector<Row>& rows_;
    std::uint64_t free_before_, least_free_;
    std::unique_ptr<Model> model_;
    std::optional<ModelBytes> bytes_;
};

/// The files are opened before anything is measured, so that a wrong name costs no time.

}  // namespace gg::bench
