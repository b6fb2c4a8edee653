// The sampler on a GPU picks the ids of gg::text::Sampler. Compiled with -fmad=false. The same stages, thread
// by thread on the host: tests/cuda/sampler_stages_test.cpp.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cuda/launch.cuh"
#include "cuda/sampler_cases.hpp"
#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/sampler.cuh"

using cuda_test::DeviceArray;
using cuda_test::launch;
using gg::cuda::Drawn;
using gg::cuda::prepare;
using gg::cuda::Row;
using gg::cuda::SamplerArgs;
using gg::cuda::SamplerState;
using gg::text::SamplerOptions;
using sampler_cases::compare;
using sampler_cases::Source;

namespace {

/// Launches all three. `first`: nothing before them in the graph.
void launch_all(const SamplerArgs& args, cudaStream_t stream, bool early, bool first) {
    const dim3 grid(static_cast<unsigned>(gg::cuda::sampler_slices(args.vocabulary)),
                    static_cast<unsigned>(args.used_rows));
    launch<gg::cuda::SamplerMaximum>(grid, args, stream, {.early = early && !first});
    launch<gg::cuda::SamplerCollect>(grid, args, stream, {.early = early});
    launch<gg::cuda::SamplerChoose>(grid, args, stream, {.early = early});
}

/// A captured graph of `repeats` draws.
class Graph {
  public:
    Graph(const SamplerArgs& args, cudaStream_t stream, bool early, int repeats) {
        prepare<gg::cuda::SamplerMaximum>();
        prepare<gg::cuda::SamplerCollect>();
        prepare<gg::cuda::SamplerChoose>();
        REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        for (int i = 0; i < repeats; ++i) launch_all(args, stream, early, i == 0);
        REQUIRE(cudaStreamEndCapture(stream, &graph_) == cudaSuccess);
        REQUIRE(cudaGraphInstantiate(&executable_, graph_, 0) == cudaSuccess);
    }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    ~Graph() {
        cudaGraphExecDestroy(executable_);
        cudaGraphDestroy(graph_);
    }
    void launch(cudaStream_t stream) const { REQUIRE(cudaGraphLaunch(executable_, stream) == cudaSuccess); }

  private:
    cudaGraph_t graph_ = nullptr;
    cudaGraphExec_t executable_ = nullptr;
};

class Stream {
  public:
    Stream() { REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(stream_); }
    operator cudaStream_t() const { return stream_; }
    void wait() const { REQUIRE(cudaStreamSynchronize(stream_) == cudaSuccess); }

  private:
    cudaStream_t stream_ = nullptr;
};

constexpr int canary = -77;

/// Rings of draws in the host's memory, one a row.
class Rings {
  public:
    explicit Rings(std::size_t rows)
        : count_(rows * gg::cuda::drawn_slots), memory_(count_ * sizeof(Drawn), "the drawn tokens") {
        clear();
    }
    Drawn* row(std::size_t row) const {
        return reinterpret_cast<Drawn*>(memory_.data()) + row * gg::cuda::drawn_slots;
    }
    void clear() const { std::fill_n(row(0), count_, Drawn{canary, canary}); }

  private:
    std::size_t count_;
    gg::cuda::PinnedBuffer memory_;
};

/// The samplers of several rows on the GPU: one graph serves all draws.
template <bool early>
class GpuSampler {
  public:
    GpuSampler(int vocabulary, int stride, const std::vector<SamplerOptions>& options,
               const std::vector<std::vector<unsigned>>& blocked)
        : rows_(options.size()),
          words_(static_cast<std::size_t>((vocabulary + 31) / 32)),
          blocked_(joined(blocked, words_)),
          recent_(std::vector<int>(rows_ * longest_window(options))),
          rings_(rows_),
          states_(initial(options, blocked)),
          logits_(std::vector<float>(rows_ * static_cast<std::size_t>(stride))),
          workspace_(std::vector<unsigned char>(
              gg::cuda::sampler_workspace_bytes(vocabulary, static_cast<int>(rows_)) + guard)),
          tokens_(std::vector<int>(128)),
          overflows_(std::vector<int>{5}),
          list_(list(stride)),
          args_{list_.data(), static_cast<int>(rows_), vocabulary, workspace_.data(), overflows_.data(), 0},
          graph_(args_, stream_, early, 1) {}

    void accept(int row, const std::vector<int>& tokens) {
        if (tokens.empty()) return;
        copy(tokens_.data(), tokens);
        launch<gg::cuda::SamplerAccept>(
            dim3(1), {states_.data() + row, tokens_.data(), static_cast<int>(tokens.size())}, stream_);
        stream_.wait();
    }

    std::vector<int> sample(const std::vector<float>& logits) {
        copy(logits_.data(), logits);
        rings_.clear();
        const std::size_t bytes =
            gg::cuda::sampler_workspace_bytes(args_.vocabulary, args_.used_rows) + guard;
        REQUIRE(cudaMemsetAsync(workspace_.data(), 0xFF, bytes, stream_) == cudaSuccess);
        graph_.launch(stream_);
        stream_.wait();
        std::vector<int> ids;
        const std::size_t slot = calls_++ % gg::cuda::drawn_slots;
        for (std::size_t row = 0; row < rows_; ++row) {
            ids.push_back(rings_.row(row)[slot].id);
            for (std::size_t i = 0; i < gg::cuda::drawn_slots; ++i)
                REQUIRE(rings_.row(row)[i].overflows == (i == slot ? 5 : canary));
        }
        for (const Row& row : list_.read()) REQUIRE(row.token == canary);
        const std::vector<unsigned char> workspace = workspace_.read();
        CHECK(std::all_of(workspace.end() - guard, workspace.end(), [](auto b) { return b == 0xFF; }));
        return ids;
    }

    SamplerState state(int row) const { return states_.read()[static_cast<std::size_t>(row)]; }

  private:
    static constexpr int guard = 256;

    static std::vector<unsigned> joined(const std::vector<std::vector<unsigned>>& blocked,
                                        std::size_t words) {
        std::vector<unsigned> all(blocked.size() * words);
        for (std::size_t row = 0; row < blocked.size(); ++row)
            std::copy(blocked[row].begin(), blocked[row].end(),
                      all.begin() + static_cast<std::ptrdiff_t>(row * words));
        return all;
    }
    static std::size_t longest_window(const std::vector<SamplerOptions>& options) {
        int longest = 1;
        for (const SamplerOptions& o : options) longest = std::max(longest, gg::cuda::sampler_recent(o));
        return static_cast<std::size_t>(longest);
    }
    std::vector<SamplerState> initial(const std::vector<SamplerOptions>& options,
                                      const std::vector<std::vector<unsigned>>& blocked) const {
        std::vector<SamplerState> states;
        for (std::size_t row = 0; row < rows_; ++row)
            states.push_back(gg::cuda::sampler_state(
                options[row], blocked[row].empty() ? nullptr : blocked_.data() + row * words_,
                recent_.data() + row * longest_window(options), rings_.row(row)));
        return states;
    }
    std::vector<Row> list(int stride) const {
        std::vector<Row> rows;
        for (std::size_t row = 0; row < rows_; ++row)
            rows.push_back({canary, 0, 0, 0, nullptr, logits_.data() + row * static_cast<std::size_t>(stride),
                            states_.data() + row});
        return rows;
    }
    template <class T>
    void copy(T* device, const std::vector<T>& values) {
        REQUIRE(cudaMemcpyAsync(device, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice,
                                stream_) == cudaSuccess);
        stream_.wait();
    }

    Stream stream_;
    std::size_t rows_, words_, calls_ = 0;
    DeviceArray<unsigned> blocked_;
    DeviceArray<int> recent_;
    Rings rings_;
    DeviceArray<SamplerState> states_;
    DeviceArray<float> logits_;
    DeviceArray<unsigned char> workspace_;
    DeviceArray<int> tokens_, overflows_;
    DeviceArray<Row> list_;
    SamplerArgs args_;
    Graph graph_;
};

__global__ void shared_functions(const float* scaled, unsigned long long* masses, float* noises, int count) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= count) return;
    masses[i] = gg::text::probability_mass(scaled[i]);
    noises[i] = gg::text::gumbel_noise(0x0123456789abcdefULL, static_cast<unsigned>(i), 1ULL << 33 | 5);
}

}  // namespace

TEST_CASE("masses and noise have the host's bits on a GPU") {
    GG_NEED_GPU();
    constexpr int count = 200000;
    std::mt19937 random(21);
    std::vector<float> scaled(count);
    for (float& z : scaled) z = -std::abs(std::normal_distribution<float>(0, 12)(random));
    const DeviceArray<float> input(scaled), noises{std::vector<float>(count)};
    const DeviceArray<unsigned long long> masses{std::vector<unsigned long long>(count)};
    shared_functions<<<(count + 255) / 256, 256>>>(input.data(), masses.data(), noises.data(), count);
    const auto mass = masses.read();
    const auto noise = noises.read();
    int different = 0;
    for (std::size_t i = 0; i < count; ++i) {
        different += mass[i] != gg::text::probability_mass(scaled[i]);
        different +=
            gg::float_bits(noise[i]) != gg::float_bits(gg::text::gumbel_noise(
                                            0x0123456789abcdefULL, static_cast<unsigned>(i), 1ULL << 33 | 5));
    }
    CHECK(different == 0);
}

TEST_CASE("the GPU picks the host's ids") {
    GG_NEED_GPU();
    Source source(31);
    for (int round = 0; round < 60; ++round)
        compare<GpuSampler<true>>(source, source.pick<int>({1, 2, 7, 40, 333, 2048, 2049, 5000}),
                                  source.uniform(1, 8), 12, source.uniform(0, sampler_cases::kinds - 1));
    for (int round = 0; round < 10; ++round)
        compare<GpuSampler<false>>(source, source.pick<int>({7, 333, 5000}), source.uniform(1, 8), 4,
                                   source.uniform(0, sampler_cases::kinds - 1));
}

TEST_CASE("the GPU picks the host's ids from large vocabularies") {
    GG_NEED_GPU();
    Source source(32);
    for (int kind = 0; kind < sampler_cases::kinds; kind += 4) {
        compare<GpuSampler<true>>(source, 50257, 4, 2, kind);
        compare<GpuSampler<true>>(source, 201088, 4, 1, kind);
    }
}

TEST_CASE("the GPU picks the host's ids where top-k is small") {
    GG_NEED_GPU();
    Source source(34);
    source.most_top_k = 48;
    for (int kind = 0; kind < sampler_cases::kinds; ++kind) {
        compare<GpuSampler<true>>(source, 16500, 8, 4, kind);
        compare<GpuSampler<true>>(source, 50257, 2, 2, kind);
    }
    compare<GpuSampler<true>>(source, 201088, 3, 2, sampler_cases::wide);
    compare<GpuSampler<true>>(source, 262208, 3, 2, sampler_cases::peaked);
}

TEST_CASE("the GPU draws thousands of ids in step with the host") {
    GG_NEED_GPU();
    Source source(33);
    SamplerOptions options;
    options.seed = 5;
    const std::vector<float> logits = source.logits(sampler_cases::flat, 3000);
    for (const int top_k : {0, 40}) {
        options.top_k = top_k;
        GpuSampler<true> gpu(3000, 3000, {options}, {{}});
        gg::text::Sampler host(options, 3000);
        for (int step = 0; step < 2000; ++step) REQUIRE(gpu.sample(logits)[0] == host.sample(logits));
        CHECK(gpu.state(0).step == 2000);
    }
}

TEST_CASE("the GPU reports logits that no model should give") {
    GG_NEED_GPU();
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = sampler_cases::inf;
    for (const float temperature : {0.0F, 0.8F}) {
        SamplerOptions options;
        options.temperature = temperature;
        GpuSampler<true> gpu(5, 5, {options}, {{0b00100}});
        CHECK(gpu.sample({-inf, -inf, nan, -inf, -inf}) == std::vector<int>{gg::cuda::sampler_all_infinite});
        CHECK(gpu.sample({-inf, 1, 2, -nan, nan}) == std::vector<int>{gg::cuda::sampler_nan - 3});
        CHECK(gpu.sample({-inf, -inf, nan, 7, -inf}) == std::vector<int>{3});
        CHECK(gpu.state(0).step == 1);
        CHECK(gpu.state(0).calls == 3);
    }
}

TEST_CASE("draws enqueued ahead, each accepted by the device, are the host's") {
    GG_NEED_GPU();
    constexpr int vocabulary = 3000, draws = gg::cuda::drawn_slots;
    SamplerOptions options;
    options.repeat_penalty = 1.3F;
    options.repeat_window = 7;
    const std::vector<float> row = Source(35).logits(sampler_cases::flat, vocabulary);
    const Stream stream;
    const DeviceArray<float> logits(row);
    const DeviceArray<int> recent(std::vector<int>(7));
    const Rings ring(1);
    const DeviceArray<SamplerState> state(
        std::vector<SamplerState>(1, gg::cuda::sampler_state(options, nullptr, recent.data(), ring.row(0))));
    const DeviceArray<Row> list(
        std::vector<Row>(1, {canary, 40, 0, 0, nullptr, logits.data(), state.data()}));
    const DeviceArray<unsigned char> workspace(
        std::vector<unsigned char>(gg::cuda::sampler_workspace_bytes(vocabulary, 1), 0xFF));
    const SamplerArgs args = {list.data(), 1, vocabulary, workspace.data(), nullptr, 1};
    const Graph graph(args, stream, true, draws / 2);
    graph.launch(stream);
    graph.launch(stream);
    stream.wait();
    gg::text::Sampler host(options, vocabulary);
    for (int i = 0; i < draws; ++i) {
        const std::int32_t expected = host.sample(row);
        host.accept(expected);
        CHECK(ring.row(0)[i].id == expected);
    }
    CHECK(list.read()[0].token == ring.row(0)[draws - 1].id);
    CHECK(list.read()[0].position == 40 + draws);
}
