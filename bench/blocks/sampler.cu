// A draw from gpt-oss's vocabulary, all three kernels of it, beside CUB's search for the largest logit and
// its sort of all logits. Compiled with -fmad=false, as the engine compiles it, so that ids equal the host's.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_reduce.cuh>

#include "data.hpp"
#include "gg/cuda/launch.hpp"
#include "gg/cuda/sampler.cuh"
#include "gg/cuda/sampler_host.hpp"
#include "gpt_oss.hpp"
#include "timing.hpp"

namespace gg::bench {

namespace {

constexpr int vocabulary = Oss::vocabulary;

/// Logits and samplers of `rows` sequences: the only place that knows how the sampler is told of them.
class Draw {
  public:
    Draw(const text::SamplerOptions& options, int rows)
        : rows_(rows),
          logits_(random_floats(size(rows, vocabulary), -8.0f, 8.0f, 90)),
          states_(buffer(std::vector<cuda::SamplerState>(
              size(rows), cuda::sampler_state(options, nullptr, nullptr, nullptr)))),
          workspace_(buffer<unsigned char>(cuda::sampler_workspace_bytes(vocabulary, rows))) {
        std::vector<cuda::Row> list;
        for (int row = 0; row < rows; ++row)
            list.push_back(
                {0, 0, row, 0, nullptr, logits_.data() + size(row, vocabulary), states_.data() + row});
        list_ = buffer(list);
    }

    void enqueue(cudaStream_t stream, bool early) const {
        cuda::SamplerArgs args{};
        args.rows = list_.data();
        args.used_rows = rows_;
        args.vocabulary = vocabulary;
        args.workspace = workspace_.data();
        args.append = 1;  // the id becomes the row's token
        const dim3 grid(static_cast<unsigned>(cuda::sampler_slices(vocabulary)),
                        static_cast<unsigned>(rows_));
        cuda::launch<cuda::SamplerMaximum>(grid, args, stream, {.early = early});
        cuda::launch<cuda::SamplerCollect>(grid, args, stream, {.early = true});
        cuda::launch<cuda::SamplerChoose>(grid, args, stream, {.early = true});
    }
    const float* logits() const { return logits_.data(); }
    std::vector<float> host_logits(int row) const {
        return read(logits_.data() + size(row, vocabulary), vocabulary);
    }
    std::vector<int> ids() const {
        std::vector<int> ids;
        for (const cuda::Row& row : read(list_.data(), size(rows_))) ids.push_back(row.token);
        return ids;
    }

  private:
    int rows_;
    cuda::DeviceBuffer<float> logits_;
    cuda::DeviceBuffer<cuda::SamplerState> states_;
    cuda::DeviceBuffer<unsigned char> workspace_;
    cuda::DeviceBuffer<cuda::Row> list_;
};

Peer measure_largest(const Bench& bench, const float* logits, int expected) {
    const auto largest = buffer<float>(1);
    const auto index = buffer<long long>(1);
    std::size_t bytes = 0;
    const auto call = [&](void* workspace, cudaStream_t stream) {
        cuda::check(cub::DeviceReduce::ArgMax(workspace, bytes, logits, largest.data(), index.data(),
                                              static_cast<long>(vocabulary), stream),
                    "cub::DeviceReduce::ArgMax");
    };
    call(nullptr, nullptr);
    const auto workspace = buffer<unsigned char>(bytes);
    call(workspace.data(), nullptr);
    Check("").see(static_cast<double>(read(index.data(), 1)[0]), expected, 0, "cub::DeviceReduce::ArgMax");
    return {"cub::DeviceReduce::ArgMax",
            time_calls(bench, 1, [&](cudaStream_t stream, int) { call(workspace.data(), stream); })};
}

Peer measure_sort(const Bench& bench, const float* logits, int expected) {
    std::vector<int> numbers(vocabulary);
    for (int i = 0; i < vocabulary; ++i) numbers[size(i)] = i;
    const auto ids = buffer(numbers), sorted_ids = buffer<int>(vocabulary);
    const auto sorted = buffer<float>(vocabulary);
    std::size_t bytes = 0;
    const auto call = [&](void* workspace, cudaStream_t stream) {
        cuda::check(
            cub::DeviceRadixSort::SortPairsDescending(workspace, bytes, logits, sorted.data(), ids.data(),
                                                      sorted_ids.data(), vocabulary, 0, 32, stream),
            "cub::DeviceRadixSort");
    };
    call(nullptr, nullptr);
    const auto workspace = buffer<unsigned char>(bytes);
    call(workspace.data(), nullptr);
    Check("").see(read(sorted_ids.data(), 1)[0], expected, 0, "cub::DeviceRadixSort");
    return {"cub::DeviceRadixSort of the logits",
            time_calls(bench, 1, [&](cudaStream_t stream, int) { call(workspace.data(), stream); })};
}

Result draw(const Bench& bench, const text::SamplerOptions& options, int rows) {
    const Draw draw(options, rows);
    const std::vector<float> logits = draw.host_logits(0);  // waits for the data
    const cuda::Stream stream;
    draw.enqueue(stream, false);
    const std::vector<int> found = draw.ids();
    Check check("the host's sampler");
    for (int row = 0; row < rows; ++row)
        check.see(found[size(row)], text::Sampler(options, vocabulary).sample(draw.host_logits(row)), 0,
                  "the id of row " + std::to_string(row));
    const int largest = static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    Result result{time_calls(bench, 1, [&](cudaStream_t stream, int i) { draw.enqueue(stream, i > 0); }),
                  0,
                  0,
                  check.text(),
                  {}};
    if (rows > 1) return result;
    if (options.temperature == 0)
        result.beside.push_back(measure_largest(bench, draw.logits(), largest));
    else
        result.beside.push_back(measure_sort(bench, draw.logits(), largest));
    return result;
}

}  // namespace

void bench_sampler(Bench& bench) {
    text::SamplerOptions greedy, usual, whole;
    greedy.temperature = 0;
    whole.top_k = 0;  // top-p over the whole vocabulary
    for (const int rows : {1, 8}) {
        const std::string shape = std::to_string(rows) + (rows == 1 ? " row" : " rows") + " of 201088";
        bench.measure("sampler: greedy", shape, [&] { return draw(bench, greedy, rows); });
        bench.measure("sampler: top-k, top-p, min-p", shape, [&] { return draw(bench, usual, rows); });
        bench.measure("sampler: top-p, min-p", shape, [&] { return draw(bench, whole, rows); });
    }
}

}  // namespace gg::bench
