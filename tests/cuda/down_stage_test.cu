// The last stage of feed-forward blocks, dense and routed, against references in double (stage_cases.hpp).
#include <cstring>

#include "cuda/launch.cuh"
#include "cuda/residual_cases.hpp"
#include "gg/cuda/down_stage.cuh"

using namespace cuda_test;
using gg::Bias;
using gg::ClampedSwiglu;
using gg::GeluTanh;
using gg::MixtureOfExperts;
using gg::Mlp;
using gg::RmsNorm;
using gg::Swiglu;
using gg::format::BF16;
using gg::format::F16;
using gg::format::MXFP4;
using gg::format::Q8_0;

namespace {

constexpr int max_slots = 4;

template <class Dims, class Block, class Format, int rows, int next_experts>
class DownCase {
  public:
    using Stage = gg::cuda::DownStage<Dims, Block, Format, rows, max_slots, next_experts>;
    using Feed = gg::cuda::FeedForward<Block, Dims>;
    using Chosen = gg::cuda::Choice<rows, Feed::used, Feed::most(rows)>;
    static constexpr int width = Feed::width, used = Feed::used, hidden = Dims::hidden;
    static constexpr int planes = gg::cuda::Tile<Format>::Operand::planes;

    static_assert(Stage::Shape::shape.row_tiles % Stage::plan.blocks != 0,
                  "no two blocks share a row of tiles");

    explicit DownCase(std::uint64_t seed)
        : random_(seed),
          experts_(Feed::routed ? Feed::experts : 1,
                   [&] { return random_matrix<Format>(hidden, width, random_); }),
          tiles_(experts_.tiles),
          bias_(random_.floats(experts_.matrices.size() * hidden, -3.0f, 3.0f)),
          device_bias_(bias_) {
        check_shared_memory<Stage>(shared_budget<Dims, rows>());
    }

    void check(int used_rows, int slots) {
        INFO(used_rows << " of " << rows << " rows, " << slots << " slots");
        const NormCase<RmsNorm> x(slots, rows, hidden, used_rows, random_);
        const OperandRows h = random_operands(planes, rows * used, used_rows * used, width, random_);
        const Chosen choice = choose(used_rows);
        std::vector<int> choice_bits(sizeof choice / sizeof(int));
        std::memcpy(choice_bits.data(), &choice, sizeof choice);
        const DeviceArray<int> device_choice(choice_bits);
        const DeviceArray<unsigned short> device_h(h.bits);
        WrittenResidual<Stage, hidden, rows, next_experts> out(random_);
        gg::cuda::DownArgs args{};
        args.x = x.stream();
        args.h = device_h.data();
        args.tiles = tiles_.data();
        args.expert_bytes = experts_.bytes();
        args.bias = Feed::has_bias ? device_bias_.data() : nullptr;
        args.choice = Feed::routed ? device_choice.data() : nullptr;
        args.router = out.router();
        args.out = out.out();
        args.router_sums = out.sums();
        args.used_rows = used_rows;
        launch<Stage>(args);
        out.read();
        Misses misses;
        for (int n = 0; n < used_rows; ++n) {
            BoundedRow expected = x.residual(n);
            for (int i = 0; i < hidden; ++i) add_experts(expected[i], choice, h, n, i);
            out.check_row(misses, n, expected);
        }
        out.check_unused(misses, used_rows);
        INFO(misses.first);
        CHECK(misses.count == 0);
    }

  private:
    void add_experts(Bounded& sum, const Chosen& choice, const OperandRows& h, int n, int i) const {
        for (int r = 0; r < used; ++r) {
            const int e = Feed::routed ? choice.expert[n][r] : 0;
            add_product(sum, experts_.matrices[e].row(i), h.rows[static_cast<std::size_t>(n) * used + r]);
            if (!Feed::has_bias) continue;
            const double bias = static_cast<double>(bias_[static_cast<std::size_t>(e) * hidden + i]);
            add_term(sum, {bias * (Feed::routed ? static_cast<double>(choice.weight[n][r]) : 1.0), 0});
        }
        add_term(sum, {});  // the residual's addition
    }

    /// Random experts of each row, some of them shared; what a stage may not use is far out of range.
    Chosen choose(int used_rows) {
        Chosen c;
        std::fill_n(reinterpret_cast<int*>(&c), sizeof c / sizeof(int), 0x7FC00001);
        if constexpr (Feed::routed) {
            std::vector<bool> any(Feed::experts, false);
            for (int n = 0; n < used_rows; ++n)
                for (int r = 0; r < used; ++r) {
                    int e;
                    bool taken;
                    do {
                        e = random_.below(r == 0 ? std::min(Feed::experts, 3) : Feed::experts);
                        taken = false;
                        for (int k = 0; k < r; ++k) taken = taken || c.expert[n][k] == e;
                    } while (taken);
                    c.expert[n][r] = e;
                    c.weight[n][r] = random_.between(0.01f, 1.0f);
                    any[e] = true;
                }
            c.count = 0;
            if (rows == 1) {
                for (int r = 0; r < used; ++r) c.listed[c.count++] = c.expert[0][r];
            } else {
                for (int e = 0; e < Feed::experts; ++e)
                    if (any[e]) c.listed[c.count++] = e;
            }
            for (int p = 0; p < c.count; ++p)
                for (int n = 0; n < used_rows; ++n) {
                    c.rank[n][p] = -1;
                    for (int r = 0; r < used; ++r)
                        if (c.expert[n][r] == c.listed[p]) c.rank[n][p] = r;
                }
        }
        return c;
    }

    Random random_;
    Experts experts_;
    DeviceArray<unsigned char> tiles_;
    std::vector<float> bias_;
    DeviceArray<float> device_bias_;
};

template <class Case>
void check_dense(std::uint64_t seed, std::vector<int> used_rows) {
    Case test(seed);
    int slots = 0;
    for (const int n : used_rows) test.check(n, slots++ % max_slots + 1);
}

template <class ChipOf, int hidden, int width, int experts, int used>
using ExpertDims = TestDims<ChipOf, hidden, 1, 1, 64, width, experts, used>;
using GptOss = MixtureOfExperts<ClampedSwiglu, Bias>;

}  // namespace

TEST_CASE("down stage, dense") {
    GG_NEED_GPU();
    SECTION("F16, eight rows") {
        using Dims = TestDims<LargeChip, 344, 1, 1, 64, 1100>;
        check_dense<DownCase<Dims, Mlp<GeluTanh, Bias>, F16, 8, 0>>(11, {8, 3, 1});
    }
    SECTION("MXFP4, one row, small chip") {
        using Dims = TestDims<SmallChip, 344, 1, 1, 64, 2880>;
        check_dense<DownCase<Dims, Mlp<Swiglu>, MXFP4, 1, 0>>(12, {1, 1, 1, 1});
    }
}

TEST_CASE("down stage, routed") {
    GG_NEED_GPU();
    SECTION("MXFP4, 4 of 32, one row") {
        using Dims = ExpertDims<LargeChip, 320, 900, 32, 4>;
        check_dense<DownCase<Dims, GptOss, MXFP4, 1, 32>>(13, {1, 1});
    }
    SECTION("MXFP4, 4 of 32, eight rows") {
        using Dims = ExpertDims<LargeChip, 328, 150, 32, 4>;
        check_dense<DownCase<Dims, GptOss, MXFP4, 8, 32>>(14, {8, 3, 1, 8});
    }
    SECTION("Q8_0, 2 of 5, eight rows") {
        using Dims = ExpertDims<LargeChip, 168, 300, 5, 2>;
        check_dense<DownCase<Dims, GptOss, Q8_0, 8, 5>>(15, {8, 3, 1});
    }
    SECTION("BF16, 2 of 5, one row, small chip") {
        using Dims = ExpertDims<SmallChip, 168, 700, 5, 2>;
        check_dense<DownCase<Dims, GptOss, BF16, 1, 0>>(16, {1, 1});
    }
}
