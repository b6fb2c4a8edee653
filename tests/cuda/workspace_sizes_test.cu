// The host's sizes of partial sums against the kernels' own launches, for every chip, format and number of
// rows.
#include "gg/cuda/workspace_sizes.hpp"

#include "catch.hpp"
#include "gg/cuda/down_stage.cuh"
#include "gg/cuda/output_stage.cuh"
#include "gg/cuda/qkv_stage.cuh"

using namespace gg::cuda;
using gg::DType;

namespace {

/// As source.hpp writes them. gpt-oss-20b, and small odd numbers.
template <int index>
struct TestChip;
template <>
struct TestChip<0> {
    static constexpr const char* architecture = "sm_90a";
    static constexpr Chip chip{132, 115712, 232448};
};
template <>
struct TestChip<1> {
    static constexpr const char* architecture = "sm_120a";
    static constexpr Chip chip{192, 50176, 101376};
};
template <class TestChip>
struct Large {
    static constexpr Chip chip = TestChip::chip;
    static constexpr int hidden = 2880, heads = 64, kv_heads = 8, head_dim = 64, experts = 32,
                         experts_used = 4, expert_feed_forward = 2880;
};
template <class TestChip>
struct Small {
    static constexpr Chip chip = TestChip::chip;
    static constexpr int hidden = 100, heads = 6, kv_heads = 3, head_dim = 20, experts = 5, experts_used = 2,
                         expert_feed_forward = 84;
};

template <class Fixed>
gg::Dims dims_of() {
    gg::Dims dims;
    dims.layers = 1;
    dims.hidden = Fixed::hidden;
    dims.heads = Fixed::heads;
    dims.kv_heads = Fixed::kv_heads;
    dims.head_dim = Fixed::head_dim;
    dims.experts = Fixed::experts;
    dims.experts_used = Fixed::experts_used;
    dims.expert_feed_forward = Fixed::expert_feed_forward;
    return dims;
}

template <class Fixed, class TestChip, class Format, int rows>
void check(DType type) {
    using Routed = gg::PartOf<gg::PartOf<gg::GptOss::Layer, 1>, 0>;
    constexpr MatvecPlan qkv = QkvShape<Fixed, Format, rows>::plan;
    constexpr MatvecPlan output = OutputShape<Fixed, Format, rows, Fixed::experts>::plan;
    constexpr MatvecPlan down = DownShape<Fixed, FeedForward<Routed, Fixed>, Format, rows, 0>::plan;
    const ModelFormats formats{{{{type, type}, {type, type}}}, type, type};
    const Target target{TestChip::architecture, TestChip::chip.multiprocessors};
    const PartialSums sums = partial_sums<gg::GptOss>(dims_of<Fixed>(), formats, target, rows);
    CAPTURE(target.architecture, Fixed::hidden, gg::info(type).name, rows);
    CHECK(chip_of(target).shared_half == TestChip::chip.shared_half);
    CHECK(chip_of(target).shared_whole == TestChip::chip.shared_whole);
    CHECK(sums.qkv_slots == qkv.slots);
    CHECK(sums.slots == std::max(output.slots, down.slots));
    CHECK(sums.blocks == std::max(output.blocks, down.blocks));
}

template <class Fixed, class TestChip, int rows>
void check_formats() {
    check<Fixed, TestChip, gg::format::F16, rows>(DType::f16);
    check<Fixed, TestChip, gg::format::BF16, rows>(DType::bf16);
    check<Fixed, TestChip, gg::format::Q8_0, rows>(DType::q8_0);
    check<Fixed, TestChip, gg::format::MXFP4, rows>(DType::mxfp4);
}

template <class TestChip>
void check_dims() {
    check_formats<Large<TestChip>, TestChip, 1>();
    check_formats<Large<TestChip>, TestChip, 8>();
    check_formats<Small<TestChip>, TestChip, 1>();
    check_formats<Small<TestChip>, TestChip, 8>();
}

}  // namespace

TEST_CASE("planned partial sums are those of the stages") {
    check_dims<TestChip<0>>();
    check_dims<TestChip<1>>();
}
