// The blocks of prefill beside its products, against double or, where integers come out, exactly.
#include <string>

#include "cuda/prefill.cuh"
#include "gg/block/layer_norm.hpp"
#include "gg/block/rms_norm.hpp"
#include "gg/block/rope.hpp"
#include "gg/core/dtype.hpp"
#include "gg/cuda/combine.cuh"
#include "gg/cuda/embed.cuh"
#include "gg/cuda/expert_sort.cuh"
#include "gg/cuda/norm_rows.cuh"
#include "gg/cuda/router.cuh"
#include "gg/format/visit.hpp"

using namespace prefill_test;
namespace cuda = gg::cuda;
namespace format = gg::format;

namespace {

constexpr double rounding = 0x1p-24;

std::size_t size(int rows, int width) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(width);
}

/// Gains and biases of a norm, and its result in double.
template <class Norm>
struct NormCase {
    int hidden;
    std::vector<float> gain, bias;
    DeviceArray<float> device_gain, device_bias;

    NormCase(Random& random, int width)
        : hidden(width),
          gain(random_floats(random, size(1, width))),
          bias(random_floats(random, size(1, width))),
          device_gain(gain),
          device_bias(bias) {}

    typename Norm::template Weights<cuda::CudaStore> weights() const {
        if constexpr (Norm::centred)
            return {{device_gain.data()}, {device_bias.data()}};
        else
            return {{device_gain.data()}};
    }

    struct Element {
        double value, bound;
    };

    /// A row's elements. The sums have `hidden` terms, so that mean and scale may be off by hidden 2^-24 of
    /// their sums of magnitudes; half of that through the square root; a few roundings follow.
    std::vector<Element> apply(const float* x) const {
        double mean = 0, magnitude = 0, squares = 0;
        for (int i = 0; i < hidden; ++i) {
            mean += static_cast<double>(x[i]) / hidden;
            magnitude += std::abs(static_cast<double>(x[i])) / hidden;
        }
        if (!Norm::centred) mean = 0;
        const double mean_error = Norm::centred ? (hidden + 1) * rounding * magnitude : 0;
        for (int i = 0; i < hidden; ++i) squares += std::pow(static_cast<double>(x[i]) - mean, 2) / hidden;
        const double scale = 1 / std::sqrt(squares + 1e-5);
        // An error m of the mean adds m^2 to the mean square and nothing in first order.
        const double scale_error = (hidden + 8) * rounding + mean_error * mean_error * scale * scale;
        std::vector<Element> elements;
        for (int i = 0; i < hidden; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const double b = Norm::centred ? static_cast<double>(bias[at]) : 0;
            const double factor = scale * static_cast<double>(gain[at]);
            const double product = (static_cast<double>(x[i]) - mean) * factor;
            elements.push_back({product + b, std::abs(product) * (scale_error + 4 * rounding) +
                                                 mean_error * std::abs(factor) + rounding * std::abs(b)});
        }
        return elements;
    }
};

template <class Norm, int hidden, class Operand>
void check_norm(int rows) {
    INFO("centred " << Norm::centred << ", hidden " << hidden << ", rows " << rows << ", planes "
                    << Operand::planes);
    using Stage = cuda::NormRows<Norm, TestDims<hidden>, Operand>;
    Random random(static_cast<unsigned>(hidden + rows));
    const NormCase<Norm> norm(random, hidden);
    std::vector<float> x = random_floats(random, size(rows, hidden), 3.0f);
    for (float& value : x) value += 0.5f;
    const DeviceArray<float> device_x(x);
    const DeviceArray<int> overflows(std::vector<int>{0});
    const int stride = cuda::operand_stride(hidden);
    const std::size_t plane = size(rows, stride);
    const Guarded<unsigned short> operand(plane * Operand::planes), again(plane * Operand::planes);
    cuda::NormArgs<Norm> args{norm.weights(), device_x.data(), rows, operand.data(), plane, overflows.data()};
    launch_and_wait<Stage>(cuda::norm_rows_launch(rows), args);
    args.operand = again.data();
    launch_and_wait<Stage>(cuda::norm_rows_launch(rows), args);
    const std::vector<unsigned short> found = operand.read();
    CHECK(same_bits(found, again.read()));
    Worst worst;
    long padding = 0;
    for (int row = 0; row < rows; ++row) {
        const auto expected = norm.apply(x.data() + size(row, hidden));
        for (int i = 0; i < stride; ++i) {
            const std::size_t at = size(row, stride) + static_cast<std::size_t>(i);
            if (i < hidden) {
                const auto& e = expected[static_cast<std::size_t>(i)];
                worst.see(operand_value<Operand>(found, plane, at), e.value,
                          e.bound + operand_rounding<Operand>(e.value));
            } else {
                for (int p = 0; p < Operand::planes; ++p)
                    padding += found[at + static_cast<std::size_t>(p) * plane] != 0;
            }
        }
    }
    CHECK(worst.ratio() <= 1.0);
    CHECK(padding == 0);
    CHECK(overflows.read()[0] == 0);
}

/// The router's arguments and outputs.
template <class Norm, class Dims>
struct RouterRun {
    std::vector<int> expert;
    std::vector<float> weight;

    RouterRun(const NormCase<Norm>& norm, const std::vector<float>& x, const std::vector<float>& router,
              const std::vector<float>& bias, int rows) {
        const DeviceArray<float> device_x(x), device_router(router), device_bias(bias);
        const Guarded<int> experts(size(rows, Dims::experts_used));
        const Guarded<float> weights(size(rows, Dims::experts_used));
        launch_and_wait<cuda::Router<Norm, Dims>>(
            cuda::router_launch(rows, Dims::experts),
            {norm.weights(), device_x.data(), device_router.data(),
             bias.empty() ? nullptr : device_bias.data(), rows, experts.data(), weights.data()});
        expert = experts.read();
        weight = weights.read();
    }
};

/// Random routing: the experts' logits in double must be in order, up to the bound of the logits.
template <class Norm, int hidden, int experts, int used>
void check_router(int rows) {
    INFO("hidden " << hidden << ", experts " << experts << ", used " << used << ", rows " << rows);
    using Dims = TestDims<hidden, experts, used>;
    Random random(static_cast<unsigned>(hidden + experts + rows));
    const NormCase<Norm> norm(random, hidden);
    const std::vector<float> x = random_floats(random, size(rows, hidden), 2.0f);
    const std::vector<float> router = random_floats(random, size(experts, hidden), 0.1f);
    const std::vector<float> bias = random_floats(random, experts);
    const RouterRun<Norm, Dims> run(norm, x, router, bias, rows), again(norm, x, router, bias, rows);
    CHECK(same_bits(run.expert, again.expert));
    CHECK(same_bits(run.weight, again.weight));
    long disordered = 0, repeated = 0;
    Worst worst;
    for (int row = 0; row < rows; ++row) {
        const auto normed = norm.apply(x.data() + size(row, hidden));
        std::vector<double> logit(experts), bound(experts);
        for (int e = 0; e < experts; ++e) {
            const auto at = static_cast<std::size_t>(e);
            double sum = 0, magnitude = 0, inherited = 0;
            for (int i = 0; i < hidden; ++i) {
                const auto& n = normed[static_cast<std::size_t>(i)];
                const double w = static_cast<double>(router[size(e, hidden) + static_cast<std::size_t>(i)]);
                sum += w * n.value;
                magnitude += std::abs(w * n.value);
                inherited += std::abs(w) * n.bound;
            }
            logit[at] = sum + static_cast<double>(bias[at]);
            bound[at] = inherited + hidden * rounding * magnitude + rounding * std::abs(logit[at]);
        }
        const int* chosen = run.expert.data() + size(row, used);
        double total = 0, largest_bound = 0;
        std::vector<bool> taken(experts);
        for (int rank = 0; rank < used; ++rank) {
            if (chosen[rank] < 0 || chosen[rank] >= experts) {
                ++disordered;
                return;
            }
            const auto e = static_cast<std::size_t>(chosen[rank]);
            repeated += taken[e];
            taken[e] = true;
            total += std::exp(logit[e] - logit[static_cast<std::size_t>(chosen[0])]);
            largest_bound = std::max(largest_bound, bound[e]);
            for (std::size_t other = 0; other < experts; ++other)
                disordered += !taken[other] && logit[other] > logit[e] + bound[e] + bound[other];
        }
        for (int rank = 0; rank < used; ++rank) {
            const double expected = std::exp(logit[static_cast<std::size_t>(chosen[rank])] -
                                             logit[static_cast<std::size_t>(chosen[0])]) /
                                    total;
            worst.see(static_cast<double>(run.weight[size(row, used) + static_cast<std::size_t>(rank)]),
                      expected, expected * (4 * largest_bound + 32 * rounding));
        }
    }
    CHECK(disordered == 0);
    CHECK(repeated == 0);
    CHECK(worst.ratio() <= 1.0);
}

/// The first rows of many, alone: blocks of 4, 16 and 32 rows must give the same bits.
template <class Norm, int hidden, int experts, int used>
void check_row_count() {
    INFO("centred " << Norm::centred << ", hidden " << hidden << ", experts " << experts);
    using Dims = TestDims<hidden, experts, used>;
    constexpr int most = 2100;
    Random random(hidden);
    const NormCase<Norm> norm(random, hidden);
    const std::vector<float> x = random_floats(random, size(most, hidden), 2.0f);
    const std::vector<float> router = random_floats(random, size(experts, hidden), 0.1f);
    const std::vector<float> bias = random_floats(random, experts);
    const RouterRun<Norm, Dims> all(norm, x, router, bias, most);
    for (const int rows : {1, 17, 100, 512, 513, 2048}) {
        INFO("rows " << rows);
        const std::vector<float> some(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(size(rows, hidden)));
        RouterRun<Norm, Dims> run(norm, some, router, bias, rows);
        const auto count = size(rows, used);
        CHECK(same_bits(run.expert, {all.expert.begin(), all.expert.begin() + std::ptrdiff_t(count)}));
        CHECK(same_bits(run.weight, {all.weight.begin(), all.weight.begin() + std::ptrdiff_t(count)}));
    }
}

/// Logits that are exact, with ties, infinities and NaNs: the bias alone, since the router's weights are 0.
template <int experts, int used>
void check_ties() {
    INFO("experts " << experts << ", used " << used);
    constexpr int hidden = 64, rows = 3;
    using Dims = TestDims<hidden, experts, used>;
    Random random(experts);
    const NormCase<gg::RmsNorm> norm(random, hidden);
    const std::vector<float> x = random_floats(random, size(rows, hidden)),
                             router(size(experts, hidden), 0.0f);
    for (int round = 0; round < 12; ++round) {
        std::vector<float> bias(experts);
        for (float& value : bias) value = static_cast<float>(random_int(random, -2, 2)) / 2;
        if (round % 3 == 1) {
            bias[static_cast<std::size_t>(random_int(random, 0, experts - 1))] = gg::quiet_nan();
            bias[0] = gg::quiet_nan();
        }
        if (round % 3 == 2) bias[static_cast<std::size_t>(random_int(random, 0, experts - 1))] = -0.0f;
        const RouterRun<gg::RmsNorm, Dims> run(norm, x, router, bias, rows);
        int expert[used];
        float weight[used];
        gg::TopKRouter::select(bias.data(), experts, used, expert, weight);
        for (int row = 0; row < rows; ++row)
            for (int rank = 0; rank < used; ++rank) {
                const std::size_t at = size(row, used) + static_cast<std::size_t>(rank);
                CHECK(run.expert[at] == expert[rank]);
                if (std::isnan(weight[rank]))
                    CHECK(std::isnan(run.weight[at]));
                else
                    CHECK(std::abs(run.weight[at] - weight[rank]) <= 32 * rounding);
            }
    }
}

void check_sort(const std::vector<int>& expert, int rows, int used, int experts) {
    INFO("rows " << rows << ", used " << used << ", experts " << experts);
    const DeviceArray<int> device_expert(expert);
    const Guarded<int> offsets(size(experts + 1, 1)), x_rows(expert.size()), place(expert.size());
    launch_and_wait<cuda::ExpertSort>(
        cuda::expert_sort_launch(experts),
        {device_expert.data(), rows, used, offsets.data(), x_rows.data(), place.data()});
    std::vector<int> expected_offsets, order;
    for (int e = 0; e < experts; ++e) {
        expected_offsets.push_back(static_cast<int>(order.size()));
        for (std::size_t p = 0; p < expert.size(); ++p)
            if (expert[p] == e) order.push_back(static_cast<int>(p));
    }
    expected_offsets.push_back(static_cast<int>(order.size()));
    std::vector<int> expected_rows(expert.size(), -1), expected_place(expert.size(), -1);
    for (std::size_t i = 0; i < order.size(); ++i) {
        expected_rows[i] = order[i] / used;
        expected_place[static_cast<std::size_t>(order[i])] = static_cast<int>(i);
    }
    CHECK(same_bits(offsets.read(), expected_offsets));
    CHECK(same_bits(x_rows.read(), expected_rows));
    CHECK(same_bits(place.read(), expected_place));
}

std::vector<int> random_experts(Random& random, int pairs, int low, int high) {
    std::vector<int> expert;
    for (int p = 0; p < pairs; ++p) expert.push_back(random_int(random, low, high));
    return expert;
}

template <int hidden, int used>
void check_combine(int rows) {
    INFO("hidden " << hidden << ", used " << used << ", rows " << rows);
    Random random(hidden);
    const std::vector<float> y = random_floats(random, size(rows * used, hidden));
    const std::vector<float> before = random_floats(random, size(rows, hidden));
    const std::vector<float> weight = random_floats(random, size(rows, used));
    std::vector<int> place(size(rows, used));
    for (std::size_t p = 0; p < place.size(); ++p) place[p] = static_cast<int>(p);
    std::shuffle(place.begin(), place.end(), random);
    const DeviceArray<float> device_y(y), device_weight(weight), x(before);
    const DeviceArray<int> device_place(place);
    launch_and_wait<cuda::CombineExperts<TestDims<hidden, used, used>>>(
        cuda::combine_launch(rows), {device_y.data(), device_place.data(), device_weight.data(), x.data()});
    const std::vector<float> found = x.read();
    Worst worst;
    for (int row = 0; row < rows; ++row)
        for (std::size_t i = 0; i < hidden; ++i) {
            double sum = 0, magnitude = 0;
            for (std::size_t rank = 0; rank < used; ++rank) {
                const std::size_t pair = size(row, used) + rank;
                const double term =
                    static_cast<double>(weight[pair]) * static_cast<double>(y[size(place[pair], hidden) + i]);
                sum += term;
                magnitude += std::abs(term);
            }
            const double start = static_cast<double>(before[size(row, hidden) + i]);
            worst.see(static_cast<double>(found[size(row, hidden) + i]), start + sum,
                      (2 * used * magnitude + std::abs(start + sum)) * rounding);
        }
    CHECK(worst.ratio() <= 1.0);
}

/// A table of random blocks, small scales: what decodes to no finite number is tried anew.
template <class Format>
std::vector<unsigned char> random_table(Random& random, int rows, int width) {
    const auto blocks = size(rows, width / Format::elements);
    std::vector<unsigned char> table(blocks * Format::bytes);
    for (std::size_t b = 0; b < blocks; ++b) {
        float values[256];
        bool finite = false;
        while (!finite) {
            for (std::size_t i = 0; i < Format::bytes; ++i)
                table[b * Format::bytes + i] = static_cast<unsigned char>(random());
            Format::decode(table.data() + b * Format::bytes, values);
            finite =
                std::all_of(values, values + Format::elements, [](float v) { return std::abs(v) < 1e30f; });
        }
    }
    return table;
}

template <class Format>
std::vector<float> decoded(const std::vector<unsigned char>& table, int row, int width) {
    std::vector<float> values(static_cast<std::size_t>(width));
    const std::size_t blocks = size(1, width / Format::elements);
    for (std::size_t b = 0; b < blocks; ++b)
        Format::decode(table.data() + (static_cast<std::size_t>(row) * blocks + b) * Format::bytes,
                       values.data() + b * Format::elements);
    return values;
}

/// Rows from device memory or a list of tokens; every element exactly the host's.
template <class Format, class PositionFormat, int hidden>
void check_embed(bool listed) {
    INFO(std::string(gg::info(format::dtype_of<Format>).name)
         << ", hidden " << hidden << ", list " << listed);
    using Dims = TestDims<hidden>;
    constexpr bool positioned = !std::is_same_v<PositionFormat, cuda::NoPositions>;
    constexpr int vocabulary = 50, context = 40, rows = 5, half = Dims::head_dim / 2;
    Random random(hidden);
    const std::vector<unsigned char> table = random_table<Format>(random, vocabulary, hidden);
    std::vector<unsigned char> positions(1);
    if constexpr (positioned) positions = random_table<PositionFormat>(random, context, hidden);
    const int start = 31;
    std::vector<cuda::Row> row_list;
    std::vector<int> tokens;
    for (int r = 0; r < rows; ++r) {
        tokens.push_back(random_int(random, 0, vocabulary - 1));
        row_list.push_back(
            {tokens.back(), listed ? start + r : random_int(random, 0, context - 1), 0, 64, nullptr});
    }
    std::vector<double> frequency;
    for (int i = 0; i < half; ++i) frequency.push_back(std::pow(10000.0, -2.0 * i / Dims::head_dim));
    const double magnitude = 1.25;
    const DeviceArray<unsigned char> device_table(table), device_positions(positions);
    const DeviceArray<cuda::Row> device_rows(row_list);
    const DeviceArray<int> device_tokens(tokens);
    const DeviceArray<double> device_frequency(frequency);
    const Guarded<float> x(size(rows, hidden)), cosines(size(rows, half)), sines(size(rows, half));
    cuda::EmbedArgs args{};
    args.tokens_table = device_table.data();
    if (positioned) args.positions_table = device_positions.data();
    if (listed)
        args.tokens = device_tokens.data();
    else
        args.rows = device_rows.data();
    args.start = start;
    args.x = x.data();
    args.inverse_frequency = device_frequency.data();
    args.magnitude = magnitude;
    args.cosines = cosines.data();
    args.sines = sines.data();
    launch_and_wait<cuda::Embed<Format, PositionFormat, Dims>>(cuda::embed_launch(rows), args);
    const std::vector<float> found = x.read(), c = cosines.read(), s = sines.read();
    long different = 0;
    Worst worst;
    for (int r = 0; r < rows; ++r) {
        const int position = row_list[static_cast<std::size_t>(r)].position;
        std::vector<float> expected = decoded<Format>(table, tokens[static_cast<std::size_t>(r)], hidden);
        if constexpr (positioned) {
            const std::vector<float> more = decoded<PositionFormat>(positions, position, hidden);
            for (std::size_t i = 0; i < hidden; ++i) expected[i] += more[i];
        }
        for (std::size_t i = 0; i < hidden; ++i)
            different += gg::float_bits(found[size(r, hidden) + i]) != gg::float_bits(expected[i]);
        for (std::size_t i = 0; i < half; ++i) {
            const double angle = position * frequency[i];
            worst.see(static_cast<double>(c[size(r, half) + i]), std::cos(angle) * magnitude,
                      rounding * 1.01 * magnitude);
            worst.see(static_cast<double>(s[size(r, half) + i]), std::sin(angle) * magnitude,
                      rounding * 1.01 * magnitude);
        }
    }
    CHECK(different == 0);
    CHECK(worst.ratio() <= 1.0);
}

}  // namespace

TEST_CASE("norms of many rows match double, padding zero") {
    GG_NEED_GPU();
    check_norm<gg::RmsNorm, 2880, cuda::HalfOperand>(9);
    check_norm<gg::RmsNorm, 320, cuda::BfloatPairOperand>(1);
    check_norm<gg::RmsNorm, 75, cuda::HalfOperand>(63);
    check_norm<gg::LayerNorm, 768, cuda::HalfOperand>(17);
    check_norm<gg::LayerNorm, 72, cuda::BfloatPairOperand>(130);
    check_norm<gg::RmsNorm, 75, cuda::HalfOperand>(3);
    check_norm<gg::LayerNorm, 3105, cuda::HalfOperand>(5);
    check_norm<gg::LayerNorm, 6200, cuda::BfloatPairOperand>(6);  // not kept in registers
}

TEST_CASE("the router's experts and weights follow from logits in double") {
    GG_NEED_GPU();
    check_router<gg::RmsNorm, 2880, 32, 4>(18);
    check_router<gg::RmsNorm, 320, 5, 2>(33);
    check_router<gg::LayerNorm, 72, 40, 8>(1);
    check_router<gg::RmsNorm, 200, 256, 8>(16);
    check_router<gg::RmsNorm, 130, 1, 1>(5);
    check_router<gg::RmsNorm, 75, 33, 3>(1);
    check_router<gg::LayerNorm, 75, 256, 8>(17);
    check_router<gg::RmsNorm, 100, 256, 8>(100);
    check_router<gg::LayerNorm, 320, 32, 4>(530);  // blocks of 16 rows
    check_router<gg::RmsNorm, 75, 256, 8>(2060);   // of 16, since 32 find no room
    check_router<gg::RmsNorm, 320, 128, 8>(2060);  // of 32
    check_router<gg::LayerNorm, 75, 40, 2>(2050);
}

TEST_CASE("a row's experts and weights do not depend on how many rows there are") {
    GG_NEED_GPU();
    check_row_count<gg::RmsNorm, 2880, 32, 4>();
    check_row_count<gg::RmsNorm, 75, 256, 8>();
    check_row_count<gg::LayerNorm, 200, 40, 8>();
}

TEST_CASE("the router of many rows breaks ties as the host's does") {
    GG_NEED_GPU();
    check_ties<32, 4>();
    check_ties<5, 5>();
    check_ties<128, 8>();
}

TEST_CASE("pairs are sorted by expert, stably") {
    GG_NEED_GPU();
    Random random(21);
    check_sort({0}, 1, 1, 1);
    check_sort({3, 1, 3, 3, 0, 3}, 3, 2, 5);
    check_sort(random_experts(random, 4 * 300, 0, 31), 300, 4, 32);
    check_sort(random_experts(random, 2 * 1000, 3, 4), 1000, 2, 9);
    check_sort(random_experts(random, 8 * 4096, 0, 255), 4096, 8, 256);
    check_sort(std::vector<int>(8 * 700, 6), 700, 8, 8);
}

TEST_CASE("experts' results are added to the residual in rank order") {
    GG_NEED_GPU();
    check_combine<320, 4>(9);
    check_combine<75, 1>(3);
    check_combine<2880, 8>(5);
}

TEST_CASE("embeddings are the host's bits in every format") {
    GG_NEED_GPU();
    using namespace gg::format;
    using cuda::NoPositions;
    check_embed<F32, NoPositions, 320>(true);
    check_embed<F16, NoPositions, 320>(false);
    check_embed<BF16, NoPositions, 320>(true);
    check_embed<Q8_0, NoPositions, 2880>(false);
    check_embed<Q4_0, NoPositions, 320>(true);
    check_embed<Q4_1, NoPositions, 320>(true);
    check_embed<Q5_0, NoPositions, 320>(true);
    check_embed<Q5_1, NoPositions, 320>(true);
    check_embed<IQ4_NL, NoPositions, 320>(true);
    check_embed<Q4_K, NoPositions, 512>(true);
    check_embed<Q5_K, NoPositions, 512>(true);
    check_embed<Q6_K, NoPositions, 512>(false);
    check_embed<MXFP4, NoPositions, 320>(true);
    check_embed<F32, F32, 72>(true);
    check_embed<Q8_0, F32, 320>(false);
    check_embed<F16, F16, 75>(false);
}
