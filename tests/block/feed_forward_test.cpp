// The dense MLP and the mixture of experts, run on the host, against their formulas in double.
#include "fixture.hpp"
#include "gg/block/gelu.hpp"
#include "gg/block/swiglu.hpp"
#include "gg/host/mixture_of_experts.hpp"

using namespace gg_test;

namespace {

// The activations' oracles; activation_test.cpp shows that these forms equal the definitions.
Bounded activation(gg::Swiglu, Bounded gate, Bounded up) {
    return gate * sigmoid(gate) * up;
}
Bounded activation(gg::ClampedSwiglu, Bounded gate, Bounded up) {
    const Bounded g = min(gate, 7.0), u = max(min(up, 7.0), -7.0);
    return g * sigmoid(Bounded(1.702, unit) * g) * (u + Bounded(1.0));
}
Bounded activation(gg::GeluTanh, Bounded, Bounded x) {
    return x * sigmoid(Bounded(2.0) * Bounded(0.79788456080286536, unit) *
                       (x + Bounded(0.044715, 0.05 * unit) * x * x * x));
}

template <class Activation>
Row activate(const Row& gate, const Row& up) {
    Row y;
    for (std::size_t i = 0; i < up.size(); ++i)
        y.push_back(activation(Activation{}, Activation::gated ? gate[i] : Bounded(), up[i]));
    return y;
}

gg::Dims small_dims(int hidden, int width) {
    gg::Dims dims;
    dims.hidden = hidden;
    dims.feed_forward = dims.expert_feed_forward = width;
    dims.experts = 5;
    dims.experts_used = 2;
    dims.kv_heads = dims.head_dim = 1;
    return dims;
}

/// What one block makes of the rows x, for every instruction set, and for 1 and 3 threads with the same bits.
template <class Block, class Weights>
std::vector<std::vector<float>> run_everywhere(const gg::Dims& dims, const Weights& weights,
                                               const std::vector<float>& x) {
    std::vector<std::vector<float>> results;
    for (const auto set : instruction_sets()) {
        results.push_back(Machine(dims, set).run<Block>(weights, x));
        CHECK(Machine(dims, set, 3).run<Block>(weights, x) == results.back());
        // Each row by itself gives the same bits.
        const auto hidden = static_cast<std::size_t>(dims.hidden);
        std::vector<float> one_by_one;
        Machine machine(dims, set);
        for (std::size_t i = 0; i < x.size(); i += hidden) {
            const auto first = x.begin() + static_cast<std::ptrdiff_t>(i);
            const std::vector<float> y =
                machine.run<Block>(weights, std::vector<float>(first, first + dims.hidden));
            one_by_one.insert(one_by_one.end(), y.begin(), y.end());
        }
        CHECK(one_by_one == results.back());
    }
    return results;
}

template <class Activation, class BiasPolicy>
void check_mlp(int hidden, int width, std::size_t rows) {
    using Block = gg::Mlp<Activation, BiasPolicy>;
    INFO("hidden " << hidden << ", width " << width << ", rows " << rows);
    const gg::Dims dims = small_dims(hidden, width);
    RandomTensors tensors(static_cast<unsigned>(hidden));
    typename Block::template Weights<gg::host::HostStore> weights;
    Block::visit(tensors, weights, dims);
    CHECK(tensors.has("ffn_gate.weight") == Activation::gated);
    CHECK(tensors.has("ffn_gate.bias") == (Activation::gated && BiasPolicy::bias));
    CHECK(tensors.has("ffn_up.bias") == BiasPolicy::bias);
    CHECK(tensors.has("ffn_down.bias") == BiasPolicy::bias);

    std::mt19937 random(1);
    const auto n = static_cast<std::size_t>(hidden);
    const std::vector<float> x = random_floats(random, rows * n);
    Row want;
    for (std::size_t i = 0; i < rows; ++i) {
        const Row in = row_of(x, i, n);
        const Row gate = Activation::gated ? linear(tensors, "ffn_gate", in) : Row();
        const Row out =
            linear(tensors, "ffn_down", activate<Activation>(gate, linear(tensors, "ffn_up", in)));
        want.insert(want.end(), out.begin(), out.end());
    }
    for (const std::vector<float>& y : run_everywhere<Block>(dims, weights, x)) {
        Agreement agreement;
        for (std::size_t i = 0; i < y.size(); ++i) agreement.add(y[i], want[i]);
        agreement.require(1e-4);
    }
}

/// The oracle of one row of a mixture: experts sorted by logit, softmax over the chosen ones.
template <class Activation>
Row mix(const RandomTensors& tensors, const gg::Dims& dims, const Row& x, std::vector<int>& rows_of_expert) {
    const Row logits = linear(tensors, "ffn_gate_inp", x);
    std::vector<std::size_t> order(logits.size());
    for (std::size_t e = 0; e < order.size(); ++e) order[e] = e;
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a].value > logits[b].value; });
    const auto used = static_cast<std::size_t>(dims.experts_used);
    for (std::size_t i = 0; i + 1 < order.size(); ++i)  // else two choices would be right
        REQUIRE(logits[order[i]].value - logits[order[i + 1]].value >
                logits[order[i]].error + logits[order[i + 1]].error);
    Row share;
    for (std::size_t i = 0; i < used; ++i) share.push_back(exp(logits[order[i]] - logits[order[0]]));
    const Bounded total = sum(share, static_cast<double>(used));

    const auto hidden = static_cast<std::size_t>(dims.hidden);
    const auto width = static_cast<std::size_t>(dims.expert_feed_forward);
    const auto product = [&](const std::string& stem, std::size_t e, const Row& in, std::size_t rows) {
        return linear(tensors[stem + ".weight"],
                      tensors.has(stem + ".bias") ? &tensors[stem + ".bias"] : nullptr, in, e * rows, rows);
    };
    std::vector<Row> terms(hidden);
    for (std::size_t i = 0; i < used; ++i) {
        const std::size_t e = order[i];
        ++rows_of_expert[e];
        const Row inner =
            activate<Activation>(product("ffn_gate_exps", e, x, width), product("ffn_up_exps", e, x, width));
        const Row out = product("ffn_down_exps", e, inner, hidden);
        for (std::size_t j = 0; j < hidden; ++j) terms[j].push_back(share[i] / total * out[j]);
    }
    Row y;
    for (const Row& parts : terms) y.push_back(sum(parts, static_cast<double>(used)));
    return y;
}

template <class Activation, class BiasPolicy>
void check_mixture(int hidden, int width, std::size_t rows, int used) {
    using Block = gg::MixtureOfExperts<Activation, BiasPolicy>;
    INFO("hidden " << hidden << ", width " << width << ", rows " << rows << ", used " << used);
    gg::Dims dims = small_dims(hidden, width);
    dims.experts_used = used;
    RandomTensors tensors(static_cast<unsigned>(hidden + used));
    typename Block::template Weights<gg::host::HostStore> weights;
    Block::visit(tensors, weights, dims);
    for (const char* stem : {"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"})
        CHECK(tensors.has(std::string(stem) + ".bias") == BiasPolicy::bias);

    std::mt19937 random(2);
    const auto n = static_cast<std::size_t>(hidden);
    const std::vector<float> x = random_floats(random, rows * n);
    Row want;
    std::vector<int> rows_of_expert(static_cast<std::size_t>(dims.experts));
    for (std::size_t i = 0; i < rows; ++i) {
        const Row out = mix<Activation>(tensors, dims, row_of(x, i, n), rows_of_expert);
        want.insert(want.end(), out.begin(), out.end());
    }
    // Two rows of two experts leave one of five without rows; with many rows of several each expert has some.
    const auto idle = std::count(rows_of_expert.begin(), rows_of_expert.end(), 0);
    if (rows <= 2 && used <= 2) CHECK(idle > 0);
    if (rows >= 20 && used > 1) CHECK(idle == 0);
    for (const std::vector<float>& y : run_everywhere<Block>(dims, weights, x)) {
        Agreement agreement;
        for (std::size_t i = 0; i < y.size(); ++i) agreement.add(y[i], want[i]);
        agreement.require(1e-4);
    }
}

}  // namespace

TEST_CASE("Mlp, gated and not, with biases and without, is within the float32 bound") {
    for (const std::size_t rows : {1, 2, 9}) {
        check_mlp<gg::Swiglu, gg::NoBias>(37, 51, rows);
        check_mlp<gg::Swiglu, gg::Bias>(51, 37, rows);
        check_mlp<gg::GeluTanh, gg::NoBias>(320, 64, rows);
        check_mlp<gg::GeluTanh, gg::Bias>(37, 320, rows);
    }
}

TEST_CASE("MixtureOfExperts is within the float32 bound, some experts without rows") {
    for (const std::size_t rows : {1, 2, 20}) {
        check_mixture<gg::ClampedSwiglu, gg::Bias>(37, 51, rows, 2);
        check_mixture<gg::ClampedSwiglu, gg::NoBias>(64, 37, rows, 2);
        check_mixture<gg::Swiglu, gg::Bias>(51, 32, rows, 1);
        check_mixture<gg::Swiglu, gg::NoBias>(37, 37, rows, 5);
    }
}
