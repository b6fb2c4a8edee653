// RmsNorm and LayerNorm, plain and fused with the residual, against double, for every instruction set.
#include "fixture.hpp"
#include "gg/block/layer_norm.hpp"
#include "gg/block/rms_norm.hpp"
#include "gg/host/layer.hpp"

using namespace gg_test;

namespace {

constexpr float epsilon = 1e-5f;

/// One norm of rows of some width, by the kernel, plain and fused.
template <class Norm>
void check_norm(int width, float offset, float spread) {
    std::mt19937 random(static_cast<unsigned>(width));
    const auto n = static_cast<std::size_t>(width);
    gg::Dims dims;
    dims.hidden = width;
    RandomTensors tensors(7);
    typename Norm::template Weights<gg::host::HostStore> weights;
    Norm::visit(tensors, "attn_norm", weights, dims);
    const std::vector<float>* bias = tensors.has("attn_norm.bias") ? &tensors["attn_norm.bias"] : nullptr;
    CHECK((bias != nullptr) == Norm::centred);

    std::vector<float> x = random_floats(random, n, spread), delta = random_floats(random, n, spread);
    for (float& v : x) v += offset;
    std::vector<float> added = x;
    for (std::size_t i = 0; i < n; ++i) added[i] += delta[i];

    for (const auto set : instruction_sets()) {
        INFO("width " << width << ", " << gg::host::to_string(set));
        std::vector<float> plain(n), fused(n), of_sum(n), stream = x, untouched = x;
        GG_HOST_DISPATCH(
            set, normalise_row<Norm>(weights, untouched.data(), nullptr, plain.data(), width, epsilon));
        CHECK(untouched == x);
        Agreement agreement;
        const Row want = normalised(row_of(x, 0, n), tensors["attn_norm.weight"], bias, epsilon);
        for (std::size_t i = 0; i < n; ++i) agreement.add(plain[i], want[i]);
        agreement.require(1e-4);

        // Fused with the residual: the same bits as adding first, and the stream holds the sum.
        GG_HOST_DISPATCH(
            set, normalise_row<Norm>(weights, stream.data(), delta.data(), fused.data(), width, epsilon));
        CHECK(stream == added);
        GG_HOST_DISPATCH(set,
                         normalise_row<Norm>(weights, stream.data(), nullptr, of_sum.data(), width, epsilon));
        CHECK(fused == of_sum);
    }
}

}  // namespace

TEST_CASE("RmsNorm is within the float32 bound, plain and fused with the residual") {
    for (const int width : {1, 2, 15, 16, 17, 37, 51, 64, 320, 2880})
        check_norm<gg::RmsNorm>(width, 0.0f, 1.3f);
    check_norm<gg::RmsNorm>(37, 0.0f, 1e-4f);  // epsilon counts
    check_norm<gg::RmsNorm>(37, 3e3f, 1e3f);
}

TEST_CASE("LayerNorm is within the float32 bound, plain and fused with the residual") {
    for (const int width : {2, 15, 16, 17, 37, 51, 64, 320, 2880})
        check_norm<gg::LayerNorm>(width, 0.5f, 1.3f);
    check_norm<gg::LayerNorm>(37, 0.0f, 1e-4f);
    check_norm<gg::LayerNorm>(320, 20.0f, 1.0f);  // a mean that a difference of squares would drown in
}

TEST_CASE("a row of zeros has the norm 0, or the bias") {
    gg::Dims dims;
    dims.hidden = 37;
    RandomTensors tensors(3);
    gg::RmsNorm::Weights<gg::host::HostStore> rms;
    gg::LayerNorm::Weights<gg::host::HostStore> layer;
    gg::RmsNorm::visit(tensors, "ffn_norm", rms, dims);
    gg::LayerNorm::visit(tensors, "output_norm", layer, dims);
    for (const auto set : instruction_sets()) {
        std::vector<float> x(37), y(37, 1.0f);
        GG_HOST_DISPATCH(set, normalise_row<gg::RmsNorm>(rms, x.data(), nullptr, y.data(), 37, epsilon));
        CHECK(y == std::vector<float>(37));
        GG_HOST_DISPATCH(set, normalise_row<gg::LayerNorm>(layer, x.data(), nullptr, y.data(), 37, epsilon));
        CHECK(y == tensors["output_norm.bias"]);
    }
}

TEST_CASE("a stream's pending delta is added once, by the next norm") {
    constexpr int width = 51, count = 5;
    gg::Dims dims;
    dims.hidden = width;
    dims.norm_epsilon = epsilon;
    dims.kv_heads = dims.head_dim = 1;
    std::mt19937 random(5);
    RandomTensors tensors(5);
    gg::RmsNorm::Weights<gg::host::HostStore> weights;
    gg::RmsNorm::visit(tensors, "attn_norm", weights, dims);
    const std::vector<float> x = random_floats(random, width * count),
                             delta = random_floats(random, width * count);
    for (const auto set : instruction_sets()) {
        Machine machine(dims, set, 2);
        gg::host::Step step = machine.step();
        gg::host::Stream stream{step.workspace.rows(count, width), step.workspace.rows(count, width), true};
        const gg::host::Rows y = step.workspace.rows(count, width);
        for (int r = 0; r < count; ++r)
            for (int i = 0; i < width; ++i) {
                stream.x.row(r)[i] = x[static_cast<std::size_t>(r * width + i)];
                stream.delta.row(r)[i] = delta[static_cast<std::size_t>(r * width + i)];
            }
        gg::host::normalise<gg::RmsNorm>(step, weights, stream, y);
        CHECK_FALSE(stream.pending);
        std::vector<float> first(y.data, y.data + y.stride * count);
        gg::host::normalise<gg::RmsNorm>(step, weights, stream, y);
        CHECK(first == std::vector<float>(y.data, y.data + y.stride * count));
        for (int r = 0; r < count; ++r)
            for (int i = 0; i < width; ++i) {
                const auto at = static_cast<std::size_t>(r * width + i);
                REQUIRE(stream.x.row(r)[i] == x[at] + delta[at]);
            }
    }
}
