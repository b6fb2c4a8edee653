// The small kernels of a prompt: norm, routing, sorting tokens by expert, adding up experts, embedding.
#include <cub/device/device_radix_sort.cuh>

#include "data.hpp"
#include "gg/cuda/combine.cuh"
#include "gg/cuda/embed.cuh"
#include "gg/cuda/expert_sort.cuh"
#include "gg/cuda/launch.hpp"
#include "gg/cuda/norm_rows.cuh"
#include "gg/cuda/router.cuh"
#include "gg/format/visit.hpp"
#include "gpt_oss.hpp"
#include "timing.hpp"

namespace gg::bench {

namespace {

constexpr int hidden = Oss::hidden, experts = Oss::experts, used = Oss::experts_used;

std::string rows_text(int rows) {
    return std::to_string(rows) + (rows == 1 ? " row" : " rows");
}
std::string where(const char* what, int row, int i) {
    return std::string(what) + ", row " + std::to_string(row) + ", element " + std::to_string(i);
}

/// Random rows of the residual stream, a gain, and the norm in double.
struct NormedRows {
    cuda::DeviceBuffer<float> x, gain = random_floats(hidden, 0.5f, 1.5f, 71);
    std::vector<float> host_gain = read(gain.data(), hidden);

    NormedRows(int rows, int turns) : x(random_floats(size(turns, rows, hidden), -1.0f, 1.0f, 70)) {}

    OssNorm::Weights<cuda::CudaStore> weights() const {
        OssNorm::Weights<cuda::CudaStore> w{};
        w.gain.data = gain.data();
        return w;
    }
    std::vector<double> normed(int row) const {
        const auto values = read(x.data() + size(row, hidden), hidden);
        double squares = 0;
        for (const float v : values) squares += static_cast<double>(v) * static_cast<double>(v);
        const double scale = 1 / std::sqrt(squares / hidden + static_cast<double>(Oss::norm_epsilon));
        std::vector<double> y;
        for (int i = 0; i < hidden; ++i)
            y.push_back(static_cast<double>(values[size(i)]) * scale *
                        static_cast<double>(host_gain[size(i)]));
        return y;
    }
};

Result norm(const Bench& bench, int rows) {
    using Stage = cuda::NormRows<OssNorm, Oss, cuda::HalfOperand>;
    const double bytes = 6.0 * rows * hidden;
    const int turns = copies_beyond_cache(bench, bytes);
    const NormedRows in(rows, turns);
    const std::size_t plane = size(rows, hidden);
    const auto out = buffer<unsigned short>(size(turns) * plane);
    const auto overflows = buffer<int>(1);
    const auto call = [&](cudaStream_t stream, int i) {
        const std::size_t at = size(i % turns) * plane;
        const cuda::NormArgs<OssNorm> args{in.weights(), in.x.data() + at, rows, out.data() + at,
                                           plane,        overflows.data()};
        cuda::launch<Stage>(cuda::norm_rows_launch(rows), args, stream);
    };
    call(nullptr, 0);
    Check check("double");
    for (const int row : {0, rows / 2, rows - 1}) {
        const std::vector<double> y = in.normed(row);
        const auto found = read(out.data() + size(row, hidden), hidden);
        for (int i = 0; i < hidden; ++i)
            check.see(static_cast<double>(format::half_to_float(found[size(i)])), y[size(i)],
                      std::fabs(y[size(i)]) * 0x1p-10 + 1e-6, where("norm", row, i));
    }
    return {time_calls(bench, turns, call), bytes, 0, check.text(), {}};
}

Result route(const Bench& bench, int rows) {
    using Stage = cuda::Router<OssNorm, Oss>;
    const int turns = copies_beyond_cache(bench, 4.0 * rows * hidden);
    const NormedRows in(rows, turns);
    const auto router = random_floats(size(experts, hidden), -0.1f, 0.1f, 72);
    const auto expert = buffer<int>(size(rows, used));
    const auto weight = buffer<float>(size(rows, used));
    const auto call = [&](cudaStream_t stream, int i) {
        const cuda::RouterArgs<OssNorm> args{in.weights(),  in.x.data() + size(i % turns, rows, hidden),
                                             router.data(), nullptr,
                                             rows,          expert.data(),
                                             weight.data()};
        cuda::launch<Stage>(cuda::router_launch(rows, experts), args, stream);
    };
    call(nullptr, 0);
    Check check("double");
    const auto w = read(router.data(), router.size());
    for (int k = 0; k < 16; ++k) {
        const int row = sample(k, 16, rows);
        const std::vector<double> y = in.normed(row);
        std::vector<double> logits(experts);
        for (int e = 0; e < experts; ++e)
            for (int i = 0; i < hidden; ++i)
                logits[size(e)] += static_cast<double>(w[size(e, hidden) + size(i)]) * y[size(i)];
        std::vector<double> sorted = logits;
        std::sort(sorted.rbegin(), sorted.rend());
        double sum = 0;
        for (int rank = 0; rank < used; ++rank) sum += std::exp(sorted[size(rank)] - sorted[0]);
        const auto chosen = read(expert.data() + size(row, used), used);
        const auto weights = read(weight.data() + size(row, used), used);
        for (int rank = 0; rank < used; ++rank) {
            const int e = std::clamp(chosen[size(rank)], 0, experts - 1);
            check.see(logits[size(e)], sorted[size(rank)], 1e-4, where("expert", row, rank));
            check.see(static_cast<double>(weights[size(rank)]),
                      std::exp(sorted[size(rank)] - sorted[0]) / sum, 1e-4, where("weight", row, rank));
        }
    }
    return {time_calls(bench, turns, call), 4.0 * rows * hidden, 0, check.text(), {}};
}

Result sort(const Bench& bench, int rows) {
    const int pairs = rows * used;
    cuda::DeviceBuffer<int> ids(size(pairs), "experts' ids");
    fill_integers(ids.data(), size(pairs), experts, 73);
    const auto offsets = buffer<int>(experts + 1), sorted = buffer<int>(size(pairs)),
               place = buffer<int>(size(pairs)), keys = buffer<int>(size(pairs));
    std::vector<int> numbers(size(pairs));
    for (int i = 0; i < pairs; ++i) numbers[size(i)] = i;
    const auto values = buffer(numbers);
    const auto call = [&](cudaStream_t stream, int) {
        cuda::launch<cuda::ExpertSort>(cuda::expert_sort_launch(experts),
                                       {ids.data(), rows, used, offsets.data(), sorted.data(), place.data()},
                                       stream);
    };
    call(nullptr, 0);
    const auto host = read(ids.data(), size(pairs)), places = read(place.data(), size(pairs)),
               tokens = read(sorted.data(), size(pairs));
    std::stable_sort(numbers.begin(), numbers.end(),
                     [&](int a, int b) { return host[size(a)] < host[size(b)]; });
    Check check("the host's stable sort");
    for (int i = 0; i < pairs; ++i) {
        check.see(places[size(numbers[size(i)])], i, 0,
                  "the place of pair " + std::to_string(numbers[size(i)]));
        check.see(tokens[size(i)], numbers[size(i)] / used, 0, "the row at place " + std::to_string(i));
    }
    Result result{time_calls(bench, 1, call), 0, 0, check.text(), {}};

    constexpr int bits = 5;
    static_assert(1 << bits == experts);
    std::size_t bytes = 0;
    const auto radix = [&](void* workspace, cudaStream_t stream) {
        cuda::check(cub::DeviceRadixSort::SortPairs(workspace, bytes, ids.data(), keys.data(), values.data(),
                                                    sorted.data(), pairs, 0, bits, stream),
                    "cub::DeviceRadixSort");
    };
    radix(nullptr, nullptr);
    const auto workspace = buffer<unsigned char>(bytes);
    radix(workspace.data(), nullptr);
    const auto found = read(sorted.data(), size(pairs));
    for (int i = 0; i < pairs; ++i) check.see(found[size(i)], numbers[size(i)], 0, "cub::DeviceRadixSort");
    result.beside.push_back(
        {"cub::DeviceRadixSort pairs",
         time_calls(bench, 1, [&](cudaStream_t stream, int) { radix(workspace.data(), stream); })});
    return result;
}

Result combine(const Bench& bench, int rows) {
    using Stage = cuda::CombineExperts<Oss>;
    const int pairs = rows * used;
    const auto y = random_floats(size(pairs, hidden), -1.0f, 1.0f, 74),
               weight = random_floats(size(pairs), 0.0f, 0.5f, 75);
    const auto x = random_floats(size(rows, hidden), -1.0f, 1.0f, 76);
    const auto before = read(x.data(), x.size());
    std::vector<int> places(size(pairs));
    for (int i = 0; i < pairs; ++i) places[size(i)] = static_cast<int>(size(i) * 4099 % size(pairs));
    const auto place = buffer(places);
    const auto call = [&](cudaStream_t stream, int) {
        cuda::launch<Stage>(cuda::combine_launch(rows), {y.data(), place.data(), weight.data(), x.data()},
                            stream);
    };
    call(nullptr, 0);
    Check check("double");
    const auto w = read(weight.data(), weight.size());
    for (const int row : {0, rows / 2, rows - 1}) {
        std::vector<double> expected(hidden);
        for (int i = 0; i < hidden; ++i)
            expected[size(i)] = static_cast<double>(before[size(row, hidden) + size(i)]);
        for (int rank = 0; rank < used; ++rank) {
            const std::size_t pair = size(row, used) + size(rank);
            const auto part = read(y.data() + size(places[pair], hidden), hidden);
            for (int i = 0; i < hidden; ++i)
                expected[size(i)] += static_cast<double>(w[pair]) * static_cast<double>(part[size(i)]);
        }
        const auto found = read(x.data() + size(row, hidden), hidden);
        for (int i = 0; i < hidden; ++i)
            check.see(static_cast<double>(found[size(i)]), expected[size(i)], 2e-6, where("sum", row, i));
    }
    return {time_calls(bench, 1, call), 4.0 * hidden * (used + 2) * rows, 0, check.text(), {}};
}

Result embed(const Bench& bench, int rows) {
    using Format = format::Q8_0;
    using Stage = cuda::Embed<Format, cuda::NoPositions, Oss>;
    constexpr int half = Oss::head_dim / 2;
    const std::size_t row_bytes = hidden / Format::elements * Format::bytes;
    const int turns = rows == 1 ? 64 : 8;
    cuda::DeviceBuffer<unsigned char> table(Oss::vocabulary * row_bytes, "random embeddings");
    fill_rows(DType::q8_0, table.data(), table.bytes(), 77);
    cuda::DeviceBuffer<int> tokens(size(turns, rows), "tokens");
    fill_integers(tokens.data(), tokens.size(), Oss::vocabulary, 78);
    std::vector<double> frequencies;
    for (int i = 0; i < half; ++i) frequencies.push_back(std::pow(150000.0, -i / double{half}));
    const auto frequency = buffer(frequencies);
    const auto x = buffer<float>(size(rows, hidden)), cosines = buffer<float>(size(rows, half)),
               sines = buffer<float>(size(rows, half));
    const auto call = [&](cudaStream_t stream, int i) {
        cuda::EmbedArgs args{};
        args.tokens_table = table.data();
        args.tokens = tokens.data() + size(i % turns, rows);
        args.x = x.data();
        args.inverse_frequency = frequency.data();
        args.magnitude = 1.25;
        args.cosines = cosines.data();
        args.sines = sines.data();
        cuda::launch<Stage>(cuda::embed_launch(rows), args, stream);
    };
    call(nullptr, 0);
    Check check("the host's decoding, and double");
    for (const int row : {0, rows / 2, rows - 1}) {
        const int token = read(tokens.data() + row, 1)[0];
        const auto bytes = read(table.data() + size(token) * row_bytes, row_bytes);
        std::vector<float> expected(hidden);
        format::decode_row(DType::q8_0, reinterpret_cast<const std::byte*>(bytes.data()), hidden,
                           expected.data());
        const auto found = read(x.data() + size(row, hidden), hidden);
        for (int i = 0; i < hidden; ++i)
            check.see(static_cast<double>(found[size(i)]), static_cast<double>(expected[size(i)]), 0,
                      where("embedding", row, i));
        const auto cosine = read(cosines.data() + size(row, half), half);
        for (int i = 0; i < half; ++i)
            check.see(static_cast<double>(cosine[size(i)]), 1.25 * std::cos(row * frequencies[size(i)]), 1e-6,
                      where("cosine", row, i));
    }
    const double bytes = rows * (static_cast<double>(row_bytes) + 4.0 * hidden + 4.0 * Oss::head_dim);
    return {time_calls(bench, turns, call), bytes, 0, check.text(), {}};
}

}  // namespace

void bench_rows(Bench& bench) {
    for (const int rows : {2048, 8192})
        bench.measure("prefill: norm", rows_text(rows), [&] { return norm(bench, rows); });
    for (const int rows : {2048, 8192})
        bench.measure("prefill: router", rows_text(rows), [&] { return route(bench, rows); });
    for (const int rows : {64, 2048, 8192})
        bench.measure("prefill: sort by expert", rows_text(rows), [&] { return sort(bench, rows); });
    for (const int rows : {2048, 8192})
        bench.measure("prefill: add up experts", rows_text(rows), [&] { return combine(bench, rows); });
    for (const int rows : {1, 2048})
        bench.measure("embed: Q8_0", rows_text(rows), [&] { return embed(bench, rows); });
}

}  // namespace gg::bench
