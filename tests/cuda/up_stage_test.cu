// The first stage of feed-forward blocks, dense and routed, against references in double (stage_cases.hpp).
#include <cstring>
#include <numeric>

#include "cuda/launch.cuh"
#include "cuda/residual_cases.hpp"
#include "gg/cuda/up_stage.cuh"

using namespace cuda_test;
using gg::Bias;
using gg::ClampedSwiglu;
using gg::GeluTanh;
using gg::LayerNorm;
using gg::MixtureOfExperts;
using gg::Mlp;
using gg::RmsNorm;
using gg::Swiglu;
using gg::cuda::BfloatPairOperand;
using gg::cuda::HalfOperand;
using gg::format::BF16;
using gg::format::F16;
using gg::format::MXFP4;
using gg::format::Q8_0;

namespace {

constexpr int max_slots = 4;

/// What a stage that routes is given, and what it must choose. Consecutive logits of a row differ by 0.07 or,
/// where ties are asked for, not at all: in even rows the last expert chosen and the first not, in odd rows
/// the first two.
template <int experts, int used>
struct Routing {
    int blocks, rows, used_rows;
    std::vector<float> sums, bias;         ///< [blocks][rows][experts], [experts]
    std::vector<std::vector<int>> chosen;  ///< [used_rows][used]
    std::vector<std::vector<Bounded>> weights;

    Routing(int blocks_, int rows_, int used_rows_, const std::vector<Bounded>& scales, bool has_bias,
            bool ties, Random& random)
        : blocks(blocks_), rows(rows_), used_rows(used_rows_) {
        sums.assign(static_cast<std::size_t>(blocks) * rows * experts, nan_float);
        bias = random.floats(experts, -1.0f, 1.0f);
        if (ties || !has_bias) bias.assign(experts, 0.0f);
        std::vector<int> order(experts);
        std::iota(order.begin(), order.end(), 0);
        for (int n = 0; n < used_rows; ++n) {
            // Rows share some of their experts: each order is the one before with a few exchanges.
            for (int i = 0; i < (n == 0 ? 4 * experts : 2); ++i)
                std::swap(order[random.below(experts)], order[random.below(n == 0 ? experts : used)]);
            for (int rank = 0; rank < experts; ++rank) fill(n, order[rank], rank, scales[n].value, random);
            if (ties) {
                const int rank = n % 2 == 0 ? used - 1 : 0;
                for (int b = 0; b < blocks; ++b)
                    sums[place(b, n, order[rank + 1])] = sums[place(b, n, order[rank])];
            }
            choose(n, scales[n]);
        }
    }

    std::size_t place(int b, int n, int e) const {
        return (static_cast<std::size_t>(b) * rows + n) * experts + e;
    }

    /// Indices of all experts chosen, ascending, or one row's in rank order.
    std::vector<int> listed() const {
        if (rows == 1) return chosen[0];
        std::vector<int> list;
        for (const auto& row : chosen) list.insert(list.end(), row.begin(), row.end());
        std::sort(list.begin(), list.end());
        list.erase(std::unique(list.begin(), list.end()), list.end());
        return list;
    }
    int rank(int n, int expert) const {
        const auto found = std::find(chosen[n].begin(), chosen[n].end(), expert);
        return found == chosen[n].end() ? -1 : static_cast<int>(found - chosen[n].begin());
    }

  private:
    void fill(int n, int e, int rank, double scale, Random& random) {
        double rest = (2.0 - 0.07 * rank - static_cast<double>(bias[e])) / scale;
        for (int b = 0; b + 1 < blocks; ++b) {
            sums[place(b, n, e)] = random.between(-1.0f, 1.0f);
            rest -= static_cast<double>(sums[place(b, n, e)]);
        }
        sums[place(blocks - 1, n, e)] = static_cast<float>(rest);
    }

    /// At most `blocks` + 16 additions, the scale's own error, and two roundings.
    void choose(int n, const Bounded& scale) {
        std::vector<Bounded> logits(experts);
        double worst = 0;
        for (int e = 0; e < experts; ++e) {
            double sum = 0, magnitude = 0;
            for (int b = 0; b < blocks; ++b) {
                sum += static_cast<double>(sums[place(b, n, e)]);
                magnitude += std::fabs(static_cast<double>(sums[place(b, n, e)]));
            }
            const double b = static_cast<double>(bias[e]);
            logits[e] = {sum * scale.value + b, (blocks + 18) * unit * magnitude * scale.value +
                                                    std::fabs(sum) * scale.error +
                                                    2 * unit * (std::fabs(sum * scale.value) + std::fabs(b))};
            worst = std::max(worst, logits[e].error);
        }
        REQUIRE(worst < 0.01);
        std::vector<int> order(experts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return logits[a].value > logits[b].value; });
        order.resize(used);
        double total = 0;
        for (const int e : order) total += std::exp(logits[e].value - logits[order[0]].value);
        std::vector<Bounded> weight;
        for (const int e : order) {
            const double w = std::exp(logits[e].value - logits[order[0]].value) / total;
            weight.push_back({w, w * (2 * worst + (24 + used) * unit)});
        }
        chosen.push_back(order);
        weights.push_back(weight);
    }
};

/// The value of an operand's element, and its planes' bits as one number.
double operand_value(const std::vector<unsigned short>& bits, std::size_t i, std::size_t plane, int planes) {
    if (planes == 1) return static_cast<double>(gg::format::half_to_float(bits[i]));
    return static_cast<double>(Codes<BF16>::value(bits[i], 0)) +
           static_cast<double>(Codes<BF16>::value(bits[i + plane], 0));
}

template <class Dims, class Norm, class Block, class Format, class NextOperand, int rows>
class UpCase {
  public:
    using Stage = gg::cuda::UpStage<Dims, Norm, Block, Format, NextOperand, rows, max_slots>;
    using Feed = gg::cuda::FeedForward<Block, Dims>;
    using Activation = typename Feed::Activation;
    static constexpr int width = Feed::width, used = Feed::used, experts = Feed::experts;
    static constexpr int planes = gg::cuda::Tile<Format>::Operand::planes;
    static constexpr int stride = (width + 63) / 64 * 64;
    static constexpr int features = Activation::gated ? 8 : 16;
    static constexpr int written = (width + features - 1) / features * features;

    explicit UpCase(std::uint64_t seed)
        : random_(seed),
          experts_(Feed::routed ? experts : 1,
                   [&] {
                       return Activation::gated ? random_interleaved<Format>(width, Dims::hidden, random_)
                                                : random_matrix<Format>(width, Dims::hidden, random_);
                   }),
          tiles_(experts_.tiles),
          gate_bias_(random_.floats(experts_.matrices.size() * width, -2.0f, 2.0f)),
          up_bias_(random_.floats(experts_.matrices.size() * width, -2.0f, 2.0f)),
          device_gate_bias_(gate_bias_),
          device_up_bias_(up_bias_) {
        check_shared_memory<Stage>(shared_budget<Dims, rows>());
    }

    void check(int used_rows, int slots, int router_blocks = 1, bool ties = false) {
        INFO(used_rows << " of " << rows << " rows, " << slots << " slots, " << router_blocks
                       << " blocks of router sums, ties " << ties);
        const NormCase<Norm> x(slots, rows, Dims::hidden, used_rows, random_);
        std::vector<NormedRow> normed;
        std::vector<Bounded> scales;
        for (int n = 0; n < used_rows; ++n) {
            normed.push_back(x.normed(n, planes));
            scales.push_back(normed.back().scale);
        }
        const std::size_t plane = elements(rows, used, stride);
        const DeviceArray<unsigned short> h(
            std::vector<unsigned short>(plane * NextOperand::planes, nan_half));
        const DeviceArray<int> overflows(std::vector<int>{0});
        gg::cuda::UpArgs<Norm> args{};
        args.x = x.stream();
        args.norm = x.weights();
        args.tiles = tiles_.data();
        args.expert_bytes = experts_.bytes();
        args.gate_bias = Feed::has_bias && Activation::gated ? device_gate_bias_.data() : nullptr;
        args.up_bias = Feed::has_bias ? device_up_bias_.data() : nullptr;
        args.h = h.data();
        args.used_rows = used_rows;
        args.overflows = overflows.data();
        Misses misses;
        if constexpr (Feed::routed) {
            using Chosen = typename Stage::Chosen;
            const Routing<experts, used> routing(router_blocks, rows, used_rows, scales, Feed::has_bias, ties,
                                                 random_);
            const DeviceArray<float> sums(routing.sums), bias(routing.bias);
            const DeviceArray<int> choice(std::vector<int>(sizeof(Chosen) / sizeof(int) + 1, -77));
            args.router_sums = sums.data();
            args.router_blocks = router_blocks;
            args.router_bias = Feed::has_bias ? bias.data() : nullptr;
            args.choice = choice.data();
            launch<Stage>(args);
            const std::vector<unsigned short> found = h.read();
            const std::vector<int> found_choice = choice.read();
            Chosen chosen;
            std::memcpy(&chosen, found_choice.data(), sizeof chosen);
            misses.expect(found_choice.back() == -77, "beyond the choice");
            check_choice(misses, chosen, routing, used_rows);
            for (int n = 0; n < used_rows; ++n)
                for (int r = 0; r < used; ++r)
                    check_row(misses, found, plane, n, r, routing.chosen[n][r], normed[n].y,
                              routing.weights[n][r]);
            check_unused(misses, found, plane, used_rows);
        } else {
            launch<Stage>(args);
            const std::vector<unsigned short> found = h.read();
            for (int n = 0; n < used_rows; ++n) check_row(misses, found, plane, n, 0, 0, normed[n].y, {1, 0});
            check_unused(misses, found, plane, used_rows);
        }
        INFO(misses.first);
        CHECK(misses.count == 0);
        CHECK(overflows.read()[0] == 0);
    }

  private:
    template <class Chosen, class Routing>
    static void check_choice(Misses& misses, const Chosen& found, const Routing& routing, int used_rows) {
        const std::vector<int> listed = routing.listed();
        misses.expect(found.count == static_cast<int>(listed.size()), "count of experts");
        for (int n = 0; n < used_rows; ++n)
            for (int r = 0; r < used; ++r) {
                misses.expect(found.expert[n][r] == routing.chosen[n][r], "expert, " + at(n, r));
                misses.compare(static_cast<double>(found.weight[n][r]), routing.weights[n][r],
                               "weight, " + at(n, r));
            }
        if (found.count != static_cast<int>(listed.size())) return;
        for (int p = 0; p < found.count; ++p) {
            misses.expect(found.listed[p] == listed[p], "list");
            for (int n = 0; n < used_rows; ++n)
                misses.expect(found.rank[n][p] == routing.rank(n, listed[p]), "rank, " + at(n, p));
        }
    }

    void check_row(Misses& misses, const std::vector<unsigned short>& found, std::size_t plane, int n,
                   int rank, int expert, const BoundedRow& y, const Bounded& weight) const {
        const Matrix& matrix = experts_.matrices[expert];
        const std::size_t begin = (static_cast<std::size_t>(n) * used + rank) * stride;
        const auto bias = [&](const std::vector<float>& all, int i) {
            return Feed::has_bias ? static_cast<double>(all[static_cast<std::size_t>(expert) * width + i])
                                  : 0.0;
        };
        for (int i = 0; i < stride; ++i) {
            const std::string where = "rank " + std::to_string(rank) + ", " + at(n, i);
            if (i < width) {
                Bounded h;
                if constexpr (Activation::gated)
                    h = activate<Activation>(product(matrix.row(i), y, bias(gate_bias_, i)),
                                             product(matrix.row(width + i), y, bias(up_bias_, i)));
                else
                    h = activate_gelu(product(matrix.row(i), y, bias(up_bias_, i)));
                h = {h.value * weight.value, h.error * (weight.value + weight.error) +
                                                 std::fabs(h.value) * weight.error +
                                                 unit * std::fabs(h.value)};
                round_operand(h, NextOperand::planes);
                misses.compare(operand_value(found, begin + i, plane, NextOperand::planes), h, where);
            } else {
                // Zeros to the end of the last tile, nothing beyond.
                for (int p = 0; p < NextOperand::planes; ++p)
                    misses.expect(found[begin + p * plane + i] == (i < written ? 0 : nan_half),
                                  "padding, " + where);
            }
        }
    }

    static void check_unused(Misses& misses, const std::vector<unsigned short>& found, std::size_t plane,
                             int used_rows) {
        for (int p = 0; p < NextOperand::planes; ++p)
            for (std::size_t i = static_cast<std::size_t>(used_rows) * used * stride; i < plane; ++i)
                misses.expect(found[p * plane + i] == nan_half, "a row that is not used");
    }

    Random random_;
    Experts experts_;
    DeviceArray<unsigned char> tiles_;
    std::vector<float> gate_bias_, up_bias_;
    DeviceArray<float> device_gate_bias_, device_up_bias_;
};

template <class Case>
void check_dense(std::uint64_t seed, std::vector<int> used_rows) {
    Case test(seed);
    int slots = 0;
    for (const int n : used_rows) test.check(n, slots++ % max_slots + 1);
}

template <class Case>
void check_routed_up(std::uint64_t seed, std::vector<int> used_rows) {
    Case test(seed);
    int slots = 0;
    for (const int n : used_rows) {
        test.check(n, slots++ % max_slots + 1, 1);
        test.check(n, 2, 37);
        test.check(n, 1, 132, true);
    }
}

template <class ChipOf, int hidden, int width, int experts, int used>
using ExpertDims = TestDims<ChipOf, hidden, 1, 1, 64, width, experts, used>;
using GptOss = MixtureOfExperts<ClampedSwiglu, Bias>;

}  // namespace

TEST_CASE("up stage, dense") {
    GG_NEED_GPU();
    SECTION("Swiglu, F16, eight rows") {
        using Dims = TestDims<LargeChip, 320, 1, 1, 64, 100>;
        check_dense<UpCase<Dims, RmsNorm, Mlp<Swiglu>, F16, HalfOperand, 8>>(1, {8, 3, 1});
    }
    SECTION("Swiglu, MXFP4, one row") {
        using Dims = TestDims<LargeChip, 320, 1, 1, 64, 2880>;
        check_dense<UpCase<Dims, RmsNorm, Mlp<Swiglu>, MXFP4, HalfOperand, 1>>(2, {1, 1, 1, 1});
    }
    SECTION("GeluTanh, BF16, eight rows") {
        using Dims = TestDims<LargeChip, 72, 1, 1, 64, 72>;
        check_dense<UpCase<Dims, LayerNorm, Mlp<GeluTanh, Bias>, BF16, BfloatPairOperand, 8>>(3, {8, 3});
    }
    SECTION("GeluTanh, Q8_0, several rounds") {
        using Dims = TestDims<SmallChip, 320, 1, 1, 64, 2890>;
        using Case = UpCase<Dims, LayerNorm, Mlp<GeluTanh, Bias>, Q8_0, HalfOperand, 1>;
        static_assert(Case::Stage::matrix_rows > 2 * Case::Stage::plan.blocks * Case::Stage::plan.round_rows);
        check_dense<Case>(4, {1, 1});
    }
}

TEST_CASE("up stage, routed, one row") {
    GG_NEED_GPU();
    SECTION("MXFP4, 4 of 32") {
        using Dims = ExpertDims<LargeChip, 320, 100, 32, 4>;
        check_routed_up<UpCase<Dims, RmsNorm, GptOss, MXFP4, HalfOperand, 1>>(5, {1, 1});
    }
    SECTION("BF16, 2 of 5, small chip") {
        using Dims = ExpertDims<SmallChip, 64, 72, 5, 2>;
        check_routed_up<UpCase<Dims, RmsNorm, GptOss, BF16, HalfOperand, 1>>(6, {1, 1});
    }
    SECTION("F16, 4 of 128, without biases") {
        using Dims = ExpertDims<LargeChip, 64, 100, 128, 4>;
        using Block = MixtureOfExperts<Swiglu>;
        check_routed_up<UpCase<Dims, RmsNorm, Block, F16, HalfOperand, 1>>(7, {1});
    }
}

TEST_CASE("up stage, routed, eight rows") {
    GG_NEED_GPU();
    SECTION("MXFP4, 4 of 32") {
        using Dims = ExpertDims<LargeChip, 320, 100, 32, 4>;
        check_routed_up<UpCase<Dims, RmsNorm, GptOss, MXFP4, HalfOperand, 8>>(8, {8, 3, 1});
    }
    SECTION("Q8_0, 2 of 5") {
        using Dims = ExpertDims<LargeChip, 72, 72, 5, 2>;
        check_routed_up<UpCase<Dims, RmsNorm, GptOss, Q8_0, BfloatPairOperand, 8>>(9, {8, 3});
    }
    SECTION("MXFP4, 4 of 128, small chip") {
        using Dims = ExpertDims<SmallChip, 72, 72, 128, 4>;
        check_routed_up<UpCase<Dims, RmsNorm, GptOss, MXFP4, HalfOperand, 8>>(10, {8, 1});
    }
}
