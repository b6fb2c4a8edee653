// Memory plans for GPUs against sums made by hand, and against what the weights take when they are there.
#include "gg/cuda/memory_plan.hpp"

#include <filesystem>

#include "catch.hpp"
#include "cuda/device.hpp"
#include "gg/cuda/weights.hpp"
#include "gg/model/synthetic_presets.hpp"
#include "host/golden.hpp"
#include "refusal.hpp"

using namespace gg::cuda;
using gg::DType;

namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20, gib = std::uint64_t{1} << 30;

/// The visitor of model/weights.hpp that gives handles of the right shapes and types, and no data.
struct ShapeBinder {
    DType dense, experts;

    void begin_layer(int) {}
    void end_layers() {}
    bool has(const char*, const char*) const { return true; }
    void vector(const char*, const char*, gg::host::Vector& v, int n) { v.size = std::size_t(n); }
    void vector_part(const char*, const char*, gg::host::Vector& v, int, int, int n) {
        v.size = std::size_t(n);
    }
    void vectors(const char*, const char*, gg::host::Vector& v, int n, int count) {
        v.size = std::size_t(n) * std::size_t(count);
    }
    void matrix(const char* stem, const char*, gg::host::Matrix& m, int columns, int rows) {
        m = of(std::string(stem) == "ffn_gate_inp" ? DType::f32 : dense, columns, rows);
    }
    void matrix_rows(const char*, const char*, gg::host::Matrix& m, int columns, int, int, int rows) {
        m = of(dense, columns, rows);
    }
    void matrices(const char*, const char*, gg::host::Matrices& m, int columns, int rows, int count) {
        m = {of(experts, columns, rows), count};
    }

    static gg::host::Matrix of(DType type, int columns, int rows) {
        const auto& info = gg::info(type);
        const auto row_bytes = std::size_t(columns) / std::size_t(info.elements) * std::size_t(info.bytes);
        return {type, nullptr, columns, rows, row_bytes};
    }
};

/// The published gpt-oss-20b and gpt-oss-120b, with the formats of the usual files.
MemoryPlanner gpt_oss(const char* preset, const Target& target) {
    return gg::with_synthetic_preset(preset, [&](auto family, const gg::SyntheticModel& model) {
        using Family = decltype(family);
        gg::ModelWeights<Family, gg::host::HostStore> weights;
        ShapeBinder binder{model.dense, model.experts};
        gg::visit_weights<Family>(binder, weights, model.dims);
        return MemoryPlanner::of<Family>(weights, model.dims, model_formats<Family>(weights), target);
    });
}

const Target h100 = {"sm_90a", 132};

std::uint64_t padded(std::uint64_t bytes) {
    return (bytes + 255) / 256 * 256;
}

}  // namespace

TEST_CASE("gpt-oss-20b: weights, cache and workspace by hand") {
    const gg::MemoryPlan plan = gpt_oss("gpt-oss-20b", h100).plan(131072);
    // 32 experts of 360 and 180 row tiles of 45 tiles of 544 bytes; 320 and 180 row tiles of Q8_0; a unit of
    // one byte for each row.
    const std::uint64_t experts =
        padded(32ull * 360 * (45 * 544 + 16)) + padded(32ull * 180 * (45 * 544 + 16));
    const std::uint64_t attention = padded(320ull * (45 * 1088 + 16)) + padded(180ull * (64 * 1088 + 16));
    // Gains, biases and sinks; the router twice, its bias; the experts' biases.
    const std::uint64_t vectors = 2 * padded(4 * 2880) + padded(4 * 4096) + 2 * padded(4 * 512) +
                                  padded(4 * 2880) + padded(4 * 64) + padded(4 * 5120) +
                                  2 * padded(4 * 32 * 2880) + padded(4 * 32) + 3 * padded(4 * 32 * 2880);
    const std::uint64_t head = 12568ull * (45 * 1088 + 16), embedding = 201088ull * 2880 / 32 * 34;
    CHECK(plan.weights ==
          24 * (experts + attention + vectors) + padded(4 * 2880) + padded(head) + padded(embedding));
    CHECK(plan.weights > 11.2 * gib);
    CHECK(plan.weights < 11.4 * gib);
    // 12 layers hold everything, 12 a window of 128 and a chunk of 2048; keys and values of 8 x 64 in FP16.
    CHECK(plan.cache == 12ull * (131072 + 2176) * 2 * 8 * 64 * 2);
    // 8192 rows, 32768 pairs of row and expert. The largest: experts' outputs and activations, in whose
    // memory attention has what it needs.
    CHECK(plan.step == 8192);
    const std::uint64_t rows = 8192, pairs = 32768;
    const std::uint64_t attention_rows =
        padded(4 * rows * 5120) + padded(2 * rows * 64 * 64) + padded(2 * rows * 4096);
    const std::uint64_t expert_rows = padded(2 * pairs * 2880) + padded(4 * pairs * 2880);
    CHECK(attention_rows < expert_rows);
    CHECK(plan.reading == padded(4 * rows) + padded(4 * rows * 2880) + padded(2 * rows * 2880) +
                              2 * padded(4 * rows * 32) + padded(4 * 33) + 4 * padded(4 * pairs) +
                              padded(4 * 64 * 201088) + expert_rows);
    CHECK(plan.overhead == device_overhead_bytes);
    CHECK(plan.total() ==
          plan.weights + plan.cache + plan.decoding + plan.reading + plan.drawing + plan.overhead);
}

TEST_CASE("gpt-oss-20b with its whole context fits into 16 GiB, on any chip") {
    for (const Target& target : {h100, Target{"sm_89", 128}, largest_target()}) {
        const MemoryPlanner planner = gpt_oss("gpt-oss-20b", target);
        const gg::MemoryPlan whole = planner.plan(131072, 1, 16 * gib);
        CAPTURE(target.architecture, whole.total(), whole.decoding);
        CHECK(whole.total() <= 16 * gib);
        CHECK(whole.step == 4096);
        CHECK(planner.largest_context(16 * gib) == 131072);
        // Sessions share all but cache, logits and state.
        const gg::MemoryPlan one = planner.plan(4096), eight = planner.plan(4096, 8);
        CHECK(eight.total() - one.total() == 7 * (one.cache + session_state_bytes(planner.dims(), 4096)));
        // With less, the context shrinks to what fits exactly, and at last to nothing.
        const int context = planner.largest_context(14 * gib);
        CHECK(context > 8192);
        CHECK(planner.plan(context, 1, 14 * gib).total() <= 14 * gib);
        CHECK(planner.plan(context + 1, 1, 14 * gib).total() > 14 * gib);
        CHECK(planner.plan(context + 1, 1, 14 * gib).step == 256);
        CHECK(planner.largest_context(12 * gib) > 0);
        CHECK(planner.largest_context(11 * gib) == 0);
    }
    CHECK(gpt_oss("gpt-oss-120b", h100).largest_context(16 * gib) == 0);
    CHECK(gpt_oss("gpt-oss-120b", h100).largest_context(80 * gib) == 131072);
}

TEST_CASE("a plan reads in the longest steps that leave room") {
    const MemoryPlanner planner = gpt_oss("gpt-oss-20b", h100);
    CHECK(planner.longest_step(80 * gib) == 8192);
    CHECK(planner.longest_step(24 * gib) == 8192);
    CHECK(planner.longest_step(16 * gib) == 4096);
    CHECK(planner.longest_step(0) == 256);
    CHECK(planner.longest_step(80 * gib, 2048) == 2048);
    CHECK(planner.longest_step(80 * gib, 100) == 100);
    // At most an eighth of what is beside the model, exactly.
    const gg::MemoryPlan least = planner.plan(1);
    const std::uint64_t fixed =
        least.overhead + least.weights + least.decoding + drawing_bytes(planner.dims());
    const std::uint64_t eighth = planner.reading_bytes(2048);
    CHECK(planner.longest_step(fixed + 8 * eighth) == 2048);
    CHECK(planner.longest_step(fixed + 8 * eighth - 1) == 1024);
    // A step is no longer than the context.
    for (const int context : {1, 9, 255, 256, 257, 2048, 5000, 8191, 8192, 8193}) {
        CAPTURE(context);
        CHECK(planner.plan(context).step == std::min(context, 8192));
        CHECK(planner.plan(context).reading == planner.reading_bytes(std::min(context, 8192)));
    }
    // What fits with the shortest steps fits; and the steps shrink only as far as they must.
    for (std::uint64_t memory = 12 * gib; memory <= 20 * gib; memory += 96 * mib)
        for (const int context : {2048, 20000, 131072})
            for (const int sessions : {1, 4}) {
                const gg::MemoryPlan plan = planner.plan(context, sessions, memory);
                const gg::MemoryPlan twice = planner.plan(context, sessions);
                const std::uint64_t others = twice.total() - twice.reading;
                CAPTURE(memory, context, sessions, plan.step);
                CHECK((plan.total() <= memory) == (others + planner.reading_bytes(256) <= memory));
                CHECK(plan.step <= planner.longest_step(memory));
                if (plan.step < std::min(context, planner.longest_step(memory)))
                    CHECK(others + planner.reading_bytes(std::min(context, 2 * plan.step)) > memory);
            }
}

TEST_CASE("no chip takes more than the one that is planned for without a GPU") {
    const std::uint64_t most = gpt_oss("gpt-oss-20b", largest_target()).plan(4096).decoding;
    for (const char* name : {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120a"})
        for (const int multiprocessors : {1, 16, 58, 84, 108, 132, 148, 170, 188, 192}) {
            CAPTURE(name, multiprocessors);
            CHECK(gpt_oss("gpt-oss-20b", {name, multiprocessors}).plan(4096).decoding <= most);
        }
    CHECK(most < 64 * mib);
}

TEST_CASE("a refusal names need, budget, device and the largest context that fits") {
    const MemoryPlanner planner = gpt_oss("gpt-oss-20b", h100);
    DeviceBudget small("a GPU", 11 * gib);
    const std::string model =
        gg_test::refusal(gg::ErrorCode::out_of_memory, [&] { require_model(small, planner, "m.gguf"); });
    CHECK(model.find("m.gguf: 11.3 GiB of weights") == 0);
    CHECK(model.find("11.0 GiB of a GPU") != model.npos);
    CHECK(model.find("No context fits") != model.npos);

    DeviceBudget budget("a GPU", 80 * gib, 14 * gib);
    CHECK_NOTHROW(require_model(budget, planner, "m.gguf"));
    const auto need = [&](int context) {
        return planner.plan(context, 1, 14 * gib).total() - device_overhead_bytes;
    };
    const int fits = planner.largest_context(14 * gib);
    CHECK_NOTHROW(require_context(budget, fits, need));
    const std::string session =
        gg_test::refusal(gg::ErrorCode::out_of_memory, [&] { require_context(budget, 131072, need); });
    CHECK(session.find("a session of 131072 tokens") == 0);
    CHECK(session.find("the limit of 14.0 GiB on a GPU") != session.npos);
    CHECK(session.find("The largest context that fits is " + std::to_string(fits) + ".") != session.npos);
}

TEST_CASE("the plans of the goldens' weights are what they take on a GPU, to the byte") {
    GG_NEED_GPU();
    int models = 0;
    for (const auto& entry : std::filesystem::directory_iterator(host_test::golden_folder())) {
        if (entry.path().extension() != ".gguf" || entry.path().stem() == "parallel-qknorm") continue;
        CAPTURE(entry.path());
        const auto file = gg::gguf::File::open(entry.path());
        const std::uint64_t planned = MemoryPlanner::of(file, h100).plan(1).weights;
        gg::host::with_bound_weights(file, [&](auto family, const gg::Dims& dims, const auto& bound) {
            using Family = decltype(family);
            // Without kernels and bytes: sizes alone.
            struct NoSource final : ByteSource {
                void bring(const std::byte*, std::size_t, unsigned char*, cudaStream_t) override {}
            } none;
            const CudaWeights<Family> weights(file, bound, dims, none, nullptr,
                                              [](DType, const RepackArgs&, cudaStream_t) {}, {});
            CHECK(weights.bytes() == planned);
            CHECK(weights.used() == planned);
        });
        ++models;
    }
    CHECK(models > 0);
}
