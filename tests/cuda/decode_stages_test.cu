// The stages of decoding around attention, and the head, against references in double (stage_cases.hpp).
#include "cuda/launch.cuh"
#include "cuda/residual_cases.hpp"
#include "gg/cuda/head_stage.cuh"
#include "gg/cuda/output_stage.cuh"
#include "gg/cuda/qkv_stage.cuh"

using namespace cuda_test;
using gg::format::BF16;
using gg::format::F16;
using gg::format::MXFP4;
using gg::format::Q8_0;

namespace {

constexpr int max_slots = 4;

template <class Dims, class Norm, class Format, int rows>
class QkvCase {
  public:
    using Stage = gg::cuda::QkvStage<Dims, Norm, Format, rows, max_slots>;
    static constexpr gg::cuda::QkvColumns columns =
        gg::cuda::qkv_columns(Dims::heads, Dims::kv_heads, Dims::head_dim);
    static constexpr int q_rows = Dims::heads * Dims::head_dim, kv_rows = Dims::kv_heads * Dims::head_dim;

    static_assert(Stage::plan.blocks == 1 || Stage::Shape::shape.column_tiles == 1 ||
                      Stage::Shape::shape.row_tiles % Stage::plan.blocks != 0,
                  "no two blocks share a row of tiles");

    explicit QkvCase(std::uint64_t seed) : random_(seed) {
        check_shared_memory<Stage>(shared_budget<Dims, rows>());
        matrix_ = random_matrix<Format>(q_rows + 2 * kv_rows, Dims::hidden, columns.width, random_, source);
    }

    void check(int used_rows, int slots, bool with_bias) {
        INFO(used_rows << " of " << rows << " rows, " << slots << " slots, bias " << with_bias);
        const NormCase<Norm> x(slots, rows, Dims::hidden, used_rows, random_);
        auto biases = random_.floats(static_cast<std::size_t>(columns.width), -3.0f, 3.0f);
        for (int i = 0; i < columns.width; ++i)
            if (source(i) < 0) biases[i] = 0.0f;
        const DeviceArray<float> device_biases(biases);
        const DeviceArray<unsigned char> tiles(matrix_.tiles);
        const int out_slots = Stage::plan.slots;
        const DeviceArray<float> out(std::vector<float>(
            static_cast<std::size_t>(out_slots) * rows * static_cast<std::size_t>(columns.width), nan_float));
        const DeviceArray<int> overflows(std::vector<int>{0});
        launch<Stage>({x.stream(), x.weights(), tiles.data(), with_bias ? device_biases.data() : nullptr,
                       out.data(), used_rows, overflows.data()});
        const std::vector<float> found = out.read();
        CHECK(overflows.read()[0] == 0);
        Misses misses;
        for (int n = 0; n < used_rows; ++n) {
            const BoundedRow y = x.normed(n, gg::cuda::Tile<Format>::Operand::planes).y;
            for (int i = 0; i < columns.width; ++i) {
                const int r = source(i);
                const Bounded expected =
                    r < 0 ? Bounded{}
                          : product(matrix_.row(r), y, with_bias ? static_cast<double>(biases[i]) : 0.0);
                misses.compare(slot_sum(found, out_slots, rows, columns.width, n, i), expected, at(n, i));
            }
        }
        for (int q = 0; q < out_slots; ++q)
            for (int n = used_rows; n < rows; ++n)
                for (int i = 0; i < columns.width; ++i)
                    misses.expect(
                        std::isnan(found[(static_cast<std::size_t>(q) * rows + n) * columns.width + i]),
                        "written: " + at(n, i));
        INFO(misses.first);
        CHECK(misses.count == 0);
        CHECK(misses.compared >= used_rows * columns.width);
    }

  private:
    /// The row of the three matrices, one after the other, at a column of the stacked product.
    static int source(int i) {
        if (i < columns.k) return i < q_rows ? i : -1;
        const int local = i < columns.v ? i - columns.k : i - columns.v;
        return local >= kv_rows ? -1 : (i < columns.v ? q_rows : q_rows + kv_rows) + local;
    }

    Random random_;
    Matrix matrix_;
};

template <class Dims, class Format, int rows, int experts>
class OutputCase {
  public:
    using Stage = gg::cuda::OutputStage<Dims, Format, rows, max_slots, experts>;
    static constexpr int width = Dims::heads * Dims::head_dim, hidden = Dims::hidden;
    static constexpr int planes = gg::cuda::Tile<Format>::Operand::planes;

    static_assert(Stage::plan.blocks == 1 || Stage::Shape::shape.column_tiles == 1 ||
                      Stage::Shape::shape.row_tiles % Stage::plan.blocks != 0,
                  "no two blocks share a row of tiles");

    explicit OutputCase(std::uint64_t seed) : random_(seed) {
        // In a step of one row it takes a little more than half, of what its neighbours leave (plan.hpp).
        check_shared_memory<Stage>(shared_budget<Dims, rows>() +
                                   (rows == 1 ? gg::cuda::reserved_shared_bytes(1) : 0));
        matrix_ = random_matrix<Format>(hidden, width, random_);
    }

    void check(int used_rows, int slots, bool with_bias) {
        INFO(used_rows << " of " << rows << " rows, " << slots << " slots, bias " << with_bias);
        const NormCase<gg::RmsNorm> x(slots, rows, hidden, used_rows, random_);
        const OperandRows mixed = random_operands(planes, rows, used_rows, width, random_);
        const auto bias = random_.floats(hidden, -3.0f, 3.0f);
        const DeviceArray<unsigned short> device_mixed(mixed.bits);
        const DeviceArray<float> device_bias(bias);
        const DeviceArray<unsigned char> tiles(matrix_.tiles);
        WrittenResidual<Stage, hidden, rows, experts> out(random_);
        launch<Stage>({x.stream(), device_mixed.data(), tiles.data(),
                       with_bias ? device_bias.data() : nullptr, out.router(), out.out(), out.sums(),
                       used_rows});
        out.read();
        Misses misses;
        for (int n = 0; n < used_rows; ++n) {
            BoundedRow expected = x.residual(n);
            for (int i = 0; i < hidden; ++i) {
                add_product(expected[i], matrix_.row(i), mixed.rows[n]);
                add_term(expected[i], {with_bias ? static_cast<double>(bias[i]) : 0.0, 0});
            }
            out.check_row(misses, n, expected);
        }
        out.check_unused(misses, used_rows);
        INFO(misses.first);
        CHECK(misses.count == 0);
    }

  private:
    Random random_;
    Matrix matrix_;
};

template <class Dims, class Norm, class Format, int rows>
void check_head(std::uint64_t seed, std::vector<int> used) {
    using Stage = gg::cuda::HeadStage<Dims, Norm, Format, rows, max_slots>;
    constexpr int planes = gg::cuda::Tile<Format>::Operand::planes, vocabulary = Dims::vocabulary;
    check_shared_memory<Stage>(shared_budget<Dims, rows>());
    Random random(seed);
    const Matrix matrix = random_matrix<Format>(vocabulary, Dims::hidden, random);
    const DeviceArray<unsigned char> tiles(matrix.tiles);
    int slots = max_slots;
    for (const int used_rows : used) {
        INFO(used_rows << " of " << rows << " rows, " << slots << " slots");
        const NormCase<Norm> x(slots--, rows, Dims::hidden, used_rows, random);
        const std::size_t size = elements(rows, vocabulary);
        const DeviceArray<float> logits(std::vector<float>(size + 16, nan_float));
        const DeviceArray<int> overflows(std::vector<int>{0});
        // Rows leave their logits where they want them, in any order; one of several wants none.
        const int unwanted = used_rows > 1 ? 1 : -1;
        const auto place = [&](int n) { return static_cast<std::size_t>(rows - 1 - n) * vocabulary; };
        std::vector<gg::cuda::Row> list(static_cast<std::size_t>(used_rows));
        for (int n = 0; n < used_rows; ++n)
            list[static_cast<std::size_t>(n)].logits = n == unwanted ? nullptr : logits.data() + place(n);
        const DeviceArray<gg::cuda::Row> row_list(list);
        launch<Stage>({x.stream(), x.weights(), tiles.data(), row_list.data(), used_rows, overflows.data()});
        const std::vector<float> found = logits.read();
        Misses misses;
        for (int n = 0; n < rows; ++n) {
            if (n >= used_rows || n == unwanted) {
                for (std::size_t i = 0; i < vocabulary; ++i)
                    misses.expect(std::isnan(found[place(n) + i]), "logits that no row wants");
                continue;
            }
            const BoundedRow y = x.normed(n, planes).y;
            for (int i = 0; i < vocabulary; ++i)
                misses.compare(static_cast<double>(found[place(n) + static_cast<std::size_t>(i)]),
                               product(matrix.row(i), y), at(n, i));
        }
        for (std::size_t i = size; i < found.size(); ++i)
            misses.expect(std::isnan(found[i]), "beyond the logits");
        INFO(misses.first);
        CHECK(misses.count == 0);
        CHECK(overflows.read()[0] == 0);
    }
}

template <class Case>
void check_one_row(std::uint64_t seed) {
    Case test(seed);
    test.check(1, 1, true);
    test.check(1, 4, false);
}
template <class Case>
void check_rows(std::uint64_t seed) {
    Case test(seed);
    test.check(8, 3, true);
    test.check(3, 2, false);
    test.check(1, 1, true);
}

}  // namespace

TEST_CASE("qkv stage, RmsNorm") {
    GG_NEED_GPU();
    SECTION("MXFP4, one row of 2880") {
        check_one_row<QkvCase<TestDims<LargeChip, 2880, 8, 1, 64>, gg::RmsNorm, MXFP4, 1>>(1);
    }
    SECTION("MXFP4, eight rows of 2880") {
        check_rows<QkvCase<TestDims<LargeChip, 2880, 8, 1, 64>, gg::RmsNorm, MXFP4, 8>>(2);
    }
    SECTION("Q8_0, 64 heads") {
        check_one_row<QkvCase<TestDims<LargeChip, 320, 64, 8, 64>, gg::RmsNorm, Q8_0, 1>>(3);
    }
    SECTION("F16, odd widths") {
        check_rows<QkvCase<TestDims<LargeChip, 72, 3, 3, 20>, gg::RmsNorm, F16, 8>>(4);
    }
    SECTION("MXFP4, small chip") {
        check_one_row<QkvCase<TestDims<SmallChip, 2880, 5, 3, 20>, gg::RmsNorm, MXFP4, 1>>(5);
    }
}

TEST_CASE("qkv stage, LayerNorm") {
    GG_NEED_GPU();
    SECTION("BF16, eight rows") {
        check_rows<QkvCase<TestDims<LargeChip, 1288, 5, 1, 40>, gg::LayerNorm, BF16, 8>>(6);
    }
    SECTION("BF16, one row") {
        check_one_row<QkvCase<TestDims<LargeChip, 64, 64, 8, 64>, gg::LayerNorm, BF16, 1>>(7);
    }
    SECTION("F16, odd widths") {
        check_one_row<QkvCase<TestDims<LargeChip, 72, 3, 3, 20>, gg::LayerNorm, F16, 1>>(8);
    }
    SECTION("Q8_0, small chip") {
        check_rows<QkvCase<TestDims<SmallChip, 320, 5, 1, 40>, gg::LayerNorm, Q8_0, 8>>(9);
    }
    SECTION("BF16, small chip") {
        check_one_row<QkvCase<TestDims<SmallChip, 2880, 5, 1, 40>, gg::LayerNorm, BF16, 1>>(10);
    }
}

TEST_CASE("output stage, without a router") {
    GG_NEED_GPU();
    check_rows<OutputCase<TestDims<LargeChip, 72, 3, 3, 20>, BF16, 8, 0>>(11);
}

TEST_CASE("output stage, with the sums of a router") {
    GG_NEED_GPU();
    SECTION("MXFP4, 32 experts, one row") {
        check_one_row<OutputCase<TestDims<LargeChip, 2880, 9, 1, 64>, MXFP4, 1, 32>>(12);
    }
    SECTION("Q8_0, 5 experts, eight rows") {
        check_rows<OutputCase<TestDims<LargeChip, 344, 5, 1, 40>, Q8_0, 8, 5>>(13);
    }
    SECTION("F16, 128 experts, small chip") {
        check_one_row<OutputCase<TestDims<SmallChip, 344, 64, 8, 64>, F16, 1, 128>>(14);
    }
    SECTION("BF16, 32 experts, small chip") {
        check_one_row<OutputCase<TestDims<SmallChip, 2920, 5, 1, 40>, BF16, 1, 32>>(15);
    }
    SECTION("MXFP4, 128 experts, eight rows") {
        check_rows<OutputCase<TestDims<LargeChip, 344, 60, 6, 64>, MXFP4, 8, 128>>(16);
    }
}

TEST_CASE("head stage, several rounds a block") {
    GG_NEED_GPU();
    SECTION("F16, one row") {
        using Dims = TestDims<LargeChip, 64, 1, 1, 64, 64, 0, 0, 50257>;
        using Stage = gg::cuda::HeadStage<Dims, gg::RmsNorm, F16, 1, max_slots>;
        static_assert(Stage::Shape::shape.row_tiles > Stage::plan.blocks * Stage::plan.round_rows);
        check_head<Dims, gg::RmsNorm, F16, 1>(17, {1, 1});
    }
    SECTION("BF16, eight rows") {
        check_head<TestDims<LargeChip, 72, 1, 1, 64, 64, 0, 0, 50257>, gg::LayerNorm, BF16, 8>(18, {8, 3});
    }
    SECTION("Q8_0, small chip") {
        using Dims = TestDims<SmallChip, 72, 1, 1, 64, 64, 0, 0, 5003>;
        using Stage = gg::cuda::HeadStage<Dims, gg::RmsNorm, Q8_0, 8, max_slots>;
        static_assert(Stage::Shape::shape.row_tiles > 4 * Stage::plan.blocks * Stage::plan.round_rows);
        check_head<Dims, gg::RmsNorm, Q8_0, 8>(19, {8, 1});
    }
}

TEST_CASE("head stage, fewer rows than a round") {
    GG_NEED_GPU();
    check_head<TestDims<LargeChip, 320, 1, 1, 64, 64, 0, 0, 1000>, gg::LayerNorm, MXFP4, 1>(20, {1, 1, 1});
}
