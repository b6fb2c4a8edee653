// The host's sizes of partial sums against the kernels' own launches, for every chip, format and number of
// rows.
#include "gg/cuda/workspace_sizes.hpp"

#include <cstdint>
#include <vector>

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

// By hand: the first and the last byte of every buffer of reading a prompt.
TEST_CASE("buffers of prefill share memory only where their lives do not meet") {
    for (const int planes : {1, 2})
        for (const int rows : {1, 300, 8192}) {
            CAPTURE(planes, rows);
            const gg::Dims d = dims_of<Large<TestChip<0>>>();
            WorkspacePlan workspace;
            PrefillBuffers out;
            plan_prefill(workspace, out, d, {2, planes}, rows);
            workspace.place(reinterpret_cast<unsigned char*>(std::uintptr_t{1} << 32));
            struct Piece {
                std::uintptr_t begin, end;
                int life;  ///< 0: the whole step, 1: attention, 2: experts
            };
            std::vector<Piece> pieces;
            const auto add = [&](const void* from, std::uint64_t bytes, int life) {
                const auto begin = reinterpret_cast<std::uintptr_t>(from);
                CHECK(begin % 256 == 0);
                CHECK(begin >= std::uintptr_t{1} << 32);
                CHECK(begin + bytes <= (std::uintptr_t{1} << 32) + workspace.bytes());
                pieces.push_back({begin, begin + bytes, life});
            };
            const std::uint64_t r = static_cast<std::uint64_t>(rows), pairs = 4 * r, p = 2 * planes;
            add(out.tokens, 4 * r, 0);
            add(out.x, 4 * r * 2880, 0);
            add(out.normed[0], p * r * 2880, 0);
            add(out.normed[1], p * r * 2880, 0);
            add(out.cosines, 4 * r * 32, 0);
            add(out.sines, 4 * r * 32, 0);
            for (const void* list :
                 {static_cast<const void*>(out.expert), static_cast<const void*>(out.weight),
                  static_cast<const void*>(out.sorted_rows), static_cast<const void*>(out.place)})
                add(list, 4 * pairs, 0);
            add(out.offsets, 4 * 33, 0);
            add(out.qkv, 4 * r * 5120, 1);
            add(out.queries, 2 * r * 4096, 1);
            add(out.mixed, p * r * 4096, 1);
            add(out.h, p * pairs * 2880, 2);
            add(out.y, 4 * pairs * 2880, 2);
            for (std::size_t i = 0; i < pieces.size(); ++i)
                for (std::size_t j = 0; j < i; ++j) {
                    const bool meet = pieces[i].begin < pieces[j].end && pieces[j].begin < pieces[i].end;
                    const bool together =
                        pieces[i].life == 0 || pieces[j].life == 0 || pieces[i].life == pieces[j].life;
                    CAPTURE(i, j);
                    CHECK_FALSE((meet && together));
                }
            CHECK(out.qkv == reinterpret_cast<float*>(out.h));
        }
}

TEST_CASE("operands have two planes where a product's weights are BF16") {
    const auto needs = [](DType first, DType second, DType head) {
        return prefill_needs<gg::GptOss>(
            ModelFormats{{{{first, second}, {DType::mxfp4, DType::mxfp4}}}, head, DType::bf16});
    };
    CHECK(needs(DType::q8_0, DType::f16, DType::q8_0).planes == 1);
    CHECK(needs(DType::bf16, DType::q8_0, DType::q8_0).planes == 2);
    CHECK(needs(DType::q8_0, DType::bf16, DType::q8_0).planes == 2);
    CHECK(needs(DType::q8_0, DType::q8_0, DType::bf16).planes == 2);
    CHECK(needs(DType::q8_0, DType::q8_0, DType::q8_0).branches == 1);
    const gg::Dims d = dims_of<Large<TestChip<0>>>();
    CHECK(prefill_bytes(d, {1, 2}, 256) > prefill_bytes(d, {1, 1}, 256));
}

TEST_CASE("planned partial sums are those of the stages") {
    check_dims<TestChip<0>>();
    check_dims<TestChip<1>>();
}
