// Attention, run on the host, against its formula in double: groups of heads, head widths, sinks, windows,
// biases, fused projections, rotary embeddings, prompts in pieces, and the ring of a sliding layer.
#include <optional>

#include "fixture.hpp"
#include "gg/block/rope.hpp"
#include "gg/host/attention.hpp"

using namespace gg_test;

namespace {

/// What a composition of policies asks of the oracle.
struct Form {
    bool sinks = false, adjacent = false, half_split = false;
    int window = 0;
    bool fused = false;
};

/// Turns one head in place; the tables are doubles rounded to float32.
template <class Frequencies>
void turn(const gg::Dims& dims, bool adjacent, std::size_t position, Bounded* x) {
    const std::size_t half = static_cast<std::size_t>(dims.head_dim) / 2;
    const double magnitude = Frequencies::magnitude(dims);
    for (std::size_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(position) * Frequencies::inverse_frequency(dims, static_cast<int>(i));
        const double c = std::cos(angle) * magnitude, s = std::sin(angle) * magnitude;
        const Bounded cosine{c, unit * std::fabs(c)}, sine{s, unit * std::fabs(s)};
        Bounded& a = x[adjacent ? 2 * i : i];
        Bounded& b = x[adjacent ? 2 * i + 1 : i + half];
        const Bounded turned = a * cosine - b * sine;
        b = b * cosine + a * sine;
        a = turned;
    }
}

/// All rows of a sequence, [rows][hidden]: the formula at the top of block/attention.hpp.
template <class Frequencies>
Row attend(const RandomTensors& tensors, const gg::Dims& dims, const Form& form,
           const std::vector<float>& x) {
    const auto hidden = static_cast<std::size_t>(dims.hidden),
               width = static_cast<std::size_t>(dims.head_dim);
    const auto heads = static_cast<std::size_t>(dims.heads),
               kv_heads = static_cast<std::size_t>(dims.kv_heads);
    const std::size_t rows = x.size() / hidden;
    std::vector<Row> q, k, v;
    for (std::size_t i = 0; i < rows; ++i) {
        const Row in = row_of(x, i, hidden);
        if (form.fused) {
            const Row all = linear(tensors, "attn_qkv", in);
            const auto k_at = all.begin() + static_cast<std::ptrdiff_t>(heads * width);
            const auto v_at = k_at + static_cast<std::ptrdiff_t>(kv_heads * width);
            q.emplace_back(all.begin(), k_at);
            k.emplace_back(k_at, v_at);
            v.emplace_back(v_at, all.end());
        } else {
            q.push_back(linear(tensors, "attn_q", in));
            k.push_back(linear(tensors, "attn_k", in));
            v.push_back(linear(tensors, "attn_v", in));
        }
        if (form.adjacent || form.half_split) {
            for (std::size_t h = 0; h < heads; ++h)
                turn<Frequencies>(dims, form.adjacent, i, q[i].data() + h * width);
            for (std::size_t h = 0; h < kv_heads; ++h)
                turn<Frequencies>(dims, form.adjacent, i, k[i].data() + h * width);
        }
    }
    const double root = 1.0 / std::sqrt(static_cast<double>(dims.head_dim));
    const Bounded scale{root, 2.0 * unit * root};  // a rounded square root, inverted
    Row y;
    for (std::size_t i = 0; i < rows; ++i) {
        Row mixed;
        const std::size_t window = form.window ? static_cast<std::size_t>(form.window) : i + 1;
        const std::size_t first = i + 1 > window ? i + 1 - window : 0;
        for (std::size_t h = 0; h < heads; ++h) {
            const std::size_t from = h / (heads / kv_heads);
            Row scores, terms(width);
            double largest = -std::numeric_limits<double>::infinity();
            for (std::size_t j = first; j <= i; ++j) {
                for (std::size_t d = 0; d < width; ++d)
                    terms[d] = q[i][h * width + d] * k[j][from * width + d];
                scores.push_back(sum(terms, static_cast<double>(width)) * scale);
                largest = std::max(largest, scores.back().value);
            }
            std::optional<Bounded> sink;
            if (form.sinks) {
                sink = Bounded(tensors["attn_sinks.weight"][h]);
                largest = std::max(largest, sink->value);
            }
            // The shift by the largest score cancels, however it is rounded: an exact one is as good.
            for (Bounded& s : scores) s = exp(s - Bounded(largest));
            const double additions = static_cast<double>(scores.size());
            Bounded total = sum(scores, additions);
            if (sink) total = total + exp(*sink - Bounded(largest));
            for (std::size_t d = 0; d < width; ++d) {
                Row parts;
                for (std::size_t j = first; j <= i; ++j)
                    parts.push_back(scores[j - first] * v[j][from * width + d]);
                mixed.push_back(sum(parts, additions) * (Bounded(1.0) / total));
            }
        }
        const Row out = linear(tensors, "attn_output", mixed);
        y.insert(y.end(), out.begin(), out.end());
    }
    return y;
}

struct Shape {
    int hidden, heads, kv_heads, head_dim;
};

gg::Dims make_dims(const Shape& shape) {
    gg::Dims dims;
    dims.layers = 2;
    dims.hidden = shape.hidden;
    dims.heads = shape.heads;
    dims.kv_heads = shape.kv_heads;
    dims.head_dim = shape.head_dim;
    dims.rope_base = 10000.0;
    dims.yarn_factor = 32.0;
    dims.yarn_original_context = 4096.0;
    dims.sliding = {true, false};
    return dims;
}

/// A sequence in pieces of `piece` rows on a fresh machine.
template <class Block, class Weights>
std::vector<float> run_in_pieces(Machine& machine, const Weights& weights, const std::vector<float>& x,
                                 std::size_t hidden, std::size_t piece) {
    std::vector<float> y;
    for (std::size_t at = 0; at < x.size() / hidden; at += piece) {
        const std::size_t end = std::min(x.size(), (at + piece) * hidden);
        const std::vector<float> part(x.begin() + static_cast<std::ptrdiff_t>(at * hidden),
                                      x.begin() + static_cast<std::ptrdiff_t>(end));
        const std::vector<float> out = machine.run<Block>(weights, part, static_cast<long>(at));
        y.insert(y.end(), out.begin(), out.end());
    }
    return y;
}

/// Rows of random x through Attention<Policies...> in layer `layer`, by every instruction set, whole, in
/// pieces and with several threads.
template <class Frequencies, class... Policies>
void check(const Shape& shape, const Form& form, std::size_t rows, int layer = 0, int window = 0) {
    using Block = gg::Attention<Policies...>;
    INFO("heads " << shape.heads << "/" << shape.kv_heads << ", head_dim " << shape.head_dim << ", rows "
                  << rows << ", window " << window << ", layer " << layer);
    gg::Dims dims = make_dims(shape);
    dims.window = window;
    RandomTensors tensors(static_cast<unsigned>(shape.head_dim + shape.heads));
    typename Block::template Weights<gg::host::HostStore> weights;
    Block::visit(tensors, weights, dims);
    std::mt19937 random(9);
    const auto hidden = static_cast<std::size_t>(shape.hidden);
    const std::vector<float> x = random_floats(random, rows * hidden);
    const Row want = attend<Frequencies>(tensors, dims, form, x);
    const int context = static_cast<int>(rows);
    for (const auto set : instruction_sets()) {
        INFO(gg::host::to_string(set));
        Machine machine(dims, set, 1, context, layer);
        const std::vector<float> y =
            run_in_pieces<Block>(machine, weights, x, hidden, gg::host::cache_shape.chunk);
        Agreement agreement;
        for (std::size_t i = 0; i < y.size(); ++i) agreement.add(y[i], want[i]);
        agreement.require(3e-3);  // for heads of 128: errors of scores grow with the width
        for (const std::size_t piece : {1, 7, 64}) {
            Machine again(dims, set, 1, context, layer);
            CHECK(run_in_pieces<Block>(again, weights, x, hidden, piece) == y);
        }
        for (const int threads : {2, 3}) {
            Machine again(dims, set, threads, context, layer);
            CHECK(run_in_pieces<Block>(again, weights, x, hidden, gg::host::cache_shape.chunk) == y);
        }
    }
}

using Plain = gg::PlainFrequencies;
using Yarn = gg::YarnFrequencies;

}  // namespace

TEST_CASE("attention of one key is that key's value, with sinks a part of it") {
    for (const int heads : {1, 3}) {
        check<Plain>({37, heads, heads, 16}, {}, 1);
        check<Plain, gg::Sinks>({37, heads, 1, 16}, {.sinks = true}, 1);
    }
}

TEST_CASE("attention of every group size: one to four heads in a pass, more in several") {
    for (const int group : {1, 2, 3, 4, 5, 8}) {
        check<Plain>({37, group, 1, 16}, {}, 40);
        check<Plain, gg::Sinks>({37, 2 * group, 2, 10}, {.sinks = true}, 19);
    }
}

TEST_CASE("attention of every head width") {
    for (const int head_dim : {1, 7, 10, 16, 40, 64, 80, 128}) check<Plain>({51, 3, 3, head_dim}, {}, 21);
}

TEST_CASE("attention with biases, with fused projections, and both") {
    check<Plain, gg::Bias>({37, 4, 2, 10}, {}, 18);
    check<Plain, gg::FusedQkv>({51, 3, 3, 17}, {.fused = true}, 18);
    check<Plain, gg::FusedQkv, gg::Bias>({320, 6, 2, 16}, {.fused = true}, 18);
}

TEST_CASE("attention with rotary embeddings") {
    check<Plain, gg::Rope>({37, 4, 2, 10}, {.adjacent = true}, 35);
    check<Plain, gg::HalfSplitRope>({37, 3, 1, 40}, {.half_split = true}, 35);
    check<Yarn, gg::YarnRope>({51, 2, 2, 64}, {.half_split = true}, 35);
}

TEST_CASE("attention in a window: keys slide out one by one") {
    for (const int window : {1, 2, 5, 15, 16, 17, 33})
        check<Plain, gg::SlidingWindow>({37, 2, 1, 10}, {.window = window}, 50, 0, window);
    // Layer 1 does not slide, and a window wider than the sequence hides nothing.
    check<Plain, gg::SlidingWindow>({37, 2, 1, 10}, {}, 50, 1, 5);
    check<Plain, gg::SlidingWindow>({37, 2, 1, 10}, {}, 20, 0, 100);
}

TEST_CASE("attention as gpt-oss composes it, past the end of the ring") {
    // The ring holds 4 + 256 positions, rounded up to 272: 300 rows lie over its end.
    const gg::Dims dims = [] {
        gg::Dims d = make_dims({16, 2, 1, 10});
        d.window = 5;
        return d;
    }();
    REQUIRE(gg::cache_positions(dims, 0, 300, gg::host::cache_shape) == 272);
    REQUIRE(gg::cache_positions(dims, 1, 300, gg::host::cache_shape) == 304);
    check<Yarn, gg::Bias, gg::YarnRope, gg::Sinks, gg::SlidingWindow>(
        {16, 2, 1, 10}, {.sinks = true, .half_split = true, .window = 5}, 300, 0, 5);
    check<Yarn, gg::Bias, gg::YarnRope, gg::Sinks, gg::SlidingWindow>(
        {16, 8, 2, 8}, {.sinks = true, .half_split = true}, 60, 1, 5);
}

TEST_CASE("a sink that outweighs every key leaves nothing, one at minus infinity changes nothing") {
    gg::Dims dims = make_dims({37, 4, 2, 10});
    std::mt19937 random(4);
    const std::vector<float> x = random_floats(random, 20 * 37);
    RandomTensors tensors(1);
    gg::Attention<gg::Sinks>::Weights<gg::host::HostStore> weights;
    gg::Attention<gg::Sinks>::visit(tensors, weights, dims);
    gg::Attention<>::Weights<gg::host::HostStore> without;
    gg::Attention<>::visit(tensors, without, dims);
    const std::vector<float> heavy(4, 1e4f), none(4, -std::numeric_limits<float>::infinity());
    for (const auto set : instruction_sets()) {
        weights.sink = {heavy.data(), heavy.size()};
        CHECK(Machine(dims, set, 1, 20).run<gg::Attention<gg::Sinks>>(weights, x) ==
              std::vector<float>(x.size()));
        weights.sink = {none.data(), none.size()};
        CHECK(Machine(dims, set, 1, 20).run<gg::Attention<gg::Sinks>>(weights, x) ==
              Machine(dims, set, 1, 20).run<gg::Attention<>>(without, x));
    }
}

TEST_CASE("keys beyond the last are not seen, whatever the cache holds there") {
    // A session that begins anew finds the old keys behind its own.
    gg::Dims dims = make_dims({37, 4, 2, 10});
    std::mt19937 random(4);
    const std::vector<float> old = random_floats(random, 40 * 37, 100.0f), x = random_floats(random, 20 * 37);
    RandomTensors tensors(1);
    gg::Attention<gg::HalfSplitRope>::Weights<gg::host::HostStore> weights;
    gg::Attention<gg::HalfSplitRope>::visit(tensors, weights, dims);
    for (const auto set : instruction_sets()) {
        Machine used(dims, set, 1, 48), fresh(dims, set, 1, 48);
        used.run<gg::Attention<gg::HalfSplitRope>>(weights, old);
        CHECK(used.run<gg::Attention<gg::HalfSplitRope>>(weights, x) ==
              fresh.run<gg::Attention<gg::HalfSplitRope>>(weights, x));
    }
}
