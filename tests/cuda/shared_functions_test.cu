// What host and device share is one function: here both sides run it on the same inputs. Block decoding must
// give the same bits; element functions may differ by the rounding of a contracted multiply-add.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "cuda/device.hpp"
#include "gg/block/gelu.hpp"
#include "gg/block/rope.hpp"
#include "gg/block/router.hpp"
#include "gg/block/swiglu.hpp"
#include "gg/core/math.hpp"
#include "gg/format/visit.hpp"
#include "gg/text/logit.hpp"
#include "gg/text/random.hpp"

using cuda_test::DeviceArray;

namespace {

constexpr int blocks_tested = 4096;

template <class Format>
__global__ void decode_blocks(const unsigned char* blocks, float* out, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) Format::decode(blocks + i * Format::bytes, out + i * Format::elements);
}

template <class Format>
void check_decode() {
    INFO(std::string(gg::info(gg::format::dtype_of<Format>).name));
    std::mt19937 random(7);
    std::vector<unsigned char> blocks(static_cast<std::size_t>(blocks_tested) * Format::bytes);
    for (unsigned char& byte : blocks) byte = static_cast<unsigned char>(random());
    std::vector<float> host(static_cast<std::size_t>(blocks_tested) * Format::elements);
    for (int i = 0; i < blocks_tested; ++i)
        Format::decode(blocks.data() + i * Format::bytes, host.data() + i * Format::elements);
    const DeviceArray<unsigned char> device_blocks(blocks);
    const DeviceArray<float> out(std::vector<float>(host.size(), -1.0f));
    decode_blocks<Format>
        <<<(blocks_tested + 127) / 128, 128>>>(device_blocks.data(), out.data(), blocks_tested);
    const std::vector<float> device = out.read();
    long different = 0;
    for (std::size_t i = 0; i < host.size(); ++i) {
        const bool nan = std::isnan(host[i]) && std::isnan(device[i]);
        different += !nan && gg::float_bits(host[i]) != gg::float_bits(device[i]);
    }
    CHECK(different == 0);
}

/// Element functions by number, so that one kernel serves all.
enum Function {
    exponential,
    logarithm,
    sigmoid,
    complementary_error,
    gelu,
    gelu_tanh,
    swiglu,
    clamped_swiglu,
    functions
};

GG_HD float evaluate(int function, float x) {
    switch (function) {
        case exponential:
            return gg::exp(x);
        case logarithm:
            return gg::log(x < 0 ? -x : x);
        case sigmoid:
            return gg::sigmoid(x);
        case complementary_error:
            return gg::erfc(x * 0.25f);
        case gelu:
            return gg::Gelu::apply(x);
        case gelu_tanh:
            return gg::GeluTanh::apply(x);
        case swiglu:
            return gg::Swiglu::apply(x, 0.75f);
        default:
            return gg::ClampedSwiglu::apply(x, x * 0.5f);
    }
}

__global__ void evaluate_all(const float* x, float* y, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    for (int f = 0; f < functions; ++f) y[f * count + i] = evaluate(f, x[i]);
}

struct RopeDims {
    static constexpr int head_dim = 64;
};

template <class Pairs>
GG_HD void rotate(float* head, const float* cosines, const float* sines) {
    gg::RotaryEmbedding<Pairs, gg::PlainFrequencies>::transform(
        0, RopeDims{}, gg::HeadPlace{0, false, cosines, sines}, head);
}

__global__ void rotate_head(float* heads, const float* cosines, const float* sines) {
    rotate<gg::HalfSplitPairs>(heads, cosines, sines);
    rotate<gg::AdjacentPairs>(heads + RopeDims::head_dim, cosines, sines);
}

constexpr int experts = 32, used = 4;

__global__ void route(const float* logits, int* expert, float* weight, int rows) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < rows)
        gg::TopKRouter::select(logits + i * experts, experts, used, expert + i * used, weight + i * used);
}

__global__ void random_words(unsigned* words, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) words[i] = gg::text::philox({{static_cast<unsigned>(i), 0, 3, 4}}, 5, 6).word[i & 3];
}

}  // namespace

TEST_CASE("the device decodes every block format to the host's bits") {
    GG_NEED_GPU();
    using namespace gg::format;
    check_decode<F32>();
    check_decode<F16>();
    check_decode<BF16>();
    check_decode<Q8_0>();
    check_decode<Q4_0>();
    check_decode<Q4_1>();
    check_decode<Q5_0>();
    check_decode<Q5_1>();
    check_decode<IQ4_NL>();
    check_decode<Q4_K>();
    check_decode<Q5_K>();
    check_decode<Q6_K>();
    check_decode<MXFP4>();
}

TEST_CASE("element functions agree with the host to a few roundings") {
    GG_NEED_GPU();
    std::vector<float> x;
    for (float v = -30.0f; v < 30.0f; v += 0.0037f) x.push_back(v);
    const int count = static_cast<int>(x.size());
    const DeviceArray<float> input(x);
    const DeviceArray<float> output(std::vector<float>(x.size() * functions));
    evaluate_all<<<(count + 127) / 128, 128>>>(input.data(), output.data(), count);
    const std::vector<float> device = output.read();
    for (int f = 0; f < functions; ++f) {
        INFO("function " << f);
        double worst = 0;
        for (int i = 0; i < count; ++i) {
            const double host = evaluate(f, x[static_cast<std::size_t>(i)]);
            const double found = device[static_cast<std::size_t>(f * count + i)];
            // Near a zero of the logarithm and of the products, an absolute error of one rounding counts.
            worst = std::max(worst, std::abs(found - host) / std::max(std::abs(host), 1e-2));
        }
        // erfc rounds its exponent at the magnitude of x^2 (up to 56 here): (8 + 2.2 x^2) 2^-24 on either
        // side.
        CHECK(worst <= (f == complementary_error || f == gelu ? 2 * (8 + 2.2 * 56.25) : 16.0) * 0x1p-24);
    }
}

TEST_CASE("heads are rotated as on the host") {
    GG_NEED_GPU();
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    std::vector<float> heads(2 * RopeDims::head_dim), cosines(RopeDims::head_dim / 2), sines(cosines.size());
    for (float& v : heads) v = normal(random);
    for (std::size_t i = 0; i < cosines.size(); ++i) {
        cosines[i] = std::cos(0.3f * static_cast<float>(i));
        sines[i] = std::sin(0.3f * static_cast<float>(i));
    }
    const DeviceArray<float> device_heads(heads), device_cosines(cosines), device_sines(sines);
    rotate_head<<<1, 1>>>(device_heads.data(), device_cosines.data(), device_sines.data());
    rotate<gg::HalfSplitPairs>(heads.data(), cosines.data(), sines.data());
    rotate<gg::AdjacentPairs>(heads.data() + RopeDims::head_dim, cosines.data(), sines.data());
    const std::vector<float> device = device_heads.read();
    for (std::size_t i = 0; i < heads.size(); ++i) CHECK(std::abs(device[i] - heads[i]) <= 16 * 0x1p-24);
}

TEST_CASE("the router picks the host's experts, ties included") {
    GG_NEED_GPU();
    constexpr int rows = 2000;
    std::mt19937 random(13);
    std::vector<float> logits(rows * experts);
    for (float& v : logits) v = static_cast<float>(static_cast<int>(random() % 64)) / 8.0f;
    const DeviceArray<float> device_logits(logits), device_weight(std::vector<float>(rows * used));
    const DeviceArray<int> device_expert(std::vector<int>(rows * used));
    route<<<(rows + 127) / 128, 128>>>(device_logits.data(), device_expert.data(), device_weight.data(),
                                       rows);
    const std::vector<int> expert = device_expert.read();
    const std::vector<float> weight = device_weight.read();
    long wrong = 0;
    for (int row = 0; row < rows; ++row) {
        int expected[used];
        float expected_weight[used];
        gg::TopKRouter::select(logits.data() + row * experts, experts, used, expected, expected_weight);
        for (int i = 0; i < used; ++i) {
            wrong += expert[static_cast<std::size_t>(row * used + i)] != expected[i];
            wrong +=
                std::abs(weight[static_cast<std::size_t>(row * used + i)] - expected_weight[i]) > 8 * 0x1p-24;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("the sampler's random words are the host's") {
    GG_NEED_GPU();
    constexpr int count = 10000;
    const DeviceArray<unsigned> words(std::vector<unsigned>(count, 0));
    random_words<<<(count + 127) / 128, 128>>>(words.data(), count);
    const std::vector<unsigned> device = words.read();
    long wrong = 0;
    for (unsigned i = 0; i < count; ++i)
        wrong += device[i] != gg::text::philox({{i, 0, 3, 4}}, 5, 6).word[i & 3];
    CHECK(wrong == 0);
}
