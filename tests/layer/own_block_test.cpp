// Blocks that user code adds beside the library's, and the embeddings, seen through a model whose layers are
// nearly nothing: its logits are the head of the normed sum of what the embedding and the branches gave.
#include <cstddef>
#include <random>
#include <vector>

#include "block/fixture.hpp"
#include "gg/block/embedding.hpp"
#include "gg/block/rms_norm.hpp"
#include "gg/gguf/writer.hpp"
#include "gg/host/model.hpp"

namespace {

using namespace gg_test;

constexpr int hidden = 37, vocabulary = 11, context = 8;
constexpr float epsilon = 1e-5f;

/// A branch of the test's own: `factor` times its input.
template <int factor>
struct Scale {
    template <class Store>
    struct Weights {};
    template <class Visitor, class Store, class Dims>
    static void visit(Visitor&, Weights<Store>&, const Dims&) {}
};

/// A family of the given embedding and layer, with fixed dimensions.
template <class EmbeddingBlock, class LayerType>
struct Tiny {
    static constexpr const char* layer_norms[2] = {"first_norm", "second_norm"};
    using Embedding = EmbeddingBlock;
    using Layer = LayerType;
    using FinalNorm = gg::RmsNorm;

    static gg::Dims read_dims(const gg::gguf::File&) {
        gg::Dims dims;
        dims.layers = 1;
        dims.hidden = hidden;
        dims.heads = dims.kv_heads = dims.head_dim = 1;
        dims.vocabulary = vocabulary;
        dims.context = context;
        dims.norm_epsilon = epsilon;
        return dims;
    }
};

}  // namespace

namespace gg::host {

/// How the host runs it.
template <int factor>
struct Run<Scale<factor>> {
    static void forward(Step& step, const typename Scale<factor>::template Weights<HostStore>&, Rows in,
                        Rows out) {
        for_each_row(step, in.count, [&](int row) {
            for (int i = 0; i < in.width; ++i) out.row(row)[i] = factor * in.row(row)[i];
        });
    }
};

}  // namespace gg::host

namespace {

using gg::Residual;
using gg::RmsNorm;
using gg::Sequence;

struct Tensors {
    std::vector<float> token, position, first_norm, second_norm, output_norm;

    Tensors() {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        const auto fill = [&](std::vector<float>& values, int n) {
            for (int i = 0; i < n; ++i) values.push_back(normal(random));
        };
        fill(token, hidden * vocabulary);
        fill(position, hidden * context);
        for (auto* norm : {&first_norm, &second_norm, &output_norm}) fill(*norm, hidden);
    }

    /// A file with a head tied to the embedding.
    std::vector<std::byte> file(bool positions) const {
        gg::gguf::Writer writer;
        writer.set("general.architecture", "tiny");
        const auto add = [&](const char* name, std::initializer_list<std::uint64_t> shape,
                             const std::vector<float>& values) {
            writer.add_tensor(name, gg::DType::f32, shape, std::as_bytes(std::span(values)));
        };
        add("token_embd.weight", {hidden, vocabulary}, token);
        if (positions) add("position_embd.weight", {hidden, context}, position);
        add("blk.0.first_norm.weight", {hidden}, first_norm);
        add("blk.0.second_norm.weight", {hidden}, second_norm);
        add("output_norm.weight", {hidden}, output_norm);
        std::vector<std::byte> bytes;
        writer.write(
            [&](std::span<const std::byte> part) { bytes.insert(bytes.end(), part.begin(), part.end()); });
        return bytes;
    }

    /// The logits after `id` at `place`, whose layer adds a * first norm and then b * second norm.
    Row logits(bool positions, std::size_t id, std::size_t place, double a, double b) const {
        Row x = row_of(token, id, hidden);
        const auto add = [&x](double factor, const Row& y) {
            for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i] + Bounded(factor) * y[i];
        };
        if (positions) add(1.0, row_of(position, place, hidden));
        add(a, normalised(x, first_norm, nullptr, epsilon));
        add(b, normalised(x, second_norm, nullptr, epsilon));
        return linear(token, nullptr, normalised(x, output_norm, nullptr, epsilon), 0, vocabulary);
    }
};

/// Runs a family over tokens in two calls and compares every row's logits with the formula.
template <class Embedding, class Layer>
void check(double a, double b) {
    const Tensors tensors;
    const std::vector<std::byte> bytes = tensors.file(Embedding::has_positions);
    const gg::gguf::File file = gg::gguf::File::parse(bytes, "tiny");
    const gg::host::HostModel<Tiny<Embedding, Layer>> model(file, {.threads = 2},
                                                            gg::host::best_instruction_set());
    const auto session = model.session(context);
    const std::vector<std::int32_t> tokens = {3, 10, 0, 3, 7, 3, 3, 1};
    Agreement agreement;
    std::size_t rows = 0;
    for (const auto& [first, count] : {std::pair<std::size_t, std::size_t>{0, 3}, {3, 5}}) {
        session->score(std::span(tokens).subspan(first, count), [&, first = first](int row, auto logits) {
            const std::size_t place = first + static_cast<std::size_t>(row);
            const auto id = static_cast<std::size_t>(tokens[place]);
            const Row want = tensors.logits(Embedding::has_positions, id, place, a, b);
            REQUIRE(logits.size() == want.size());
            for (std::size_t v = 0; v < want.size(); ++v) agreement.add(logits[v], want[v]);
            ++rows;
        });
    }
    CHECK(rows == tokens.size());
    agreement.require(1e-4);
}

}  // namespace

TEST_CASE("a token's embedding is its row; learned positions add theirs, across calls") {
    using Layer = Sequence<Residual<RmsNorm, Scale<0>>, Residual<RmsNorm, Scale<0>>>;
    check<gg::TokenEmbedding, Layer>(0.0, 0.0);
    check<gg::PositionedEmbedding, Layer>(0.0, 0.0);
}

TEST_CASE("residuals run one after the other, branches of one residual side by side") {
    check<gg::TokenEmbedding, gg::Layer<RmsNorm, Scale<2>, Scale<-3>>>(2.0, -3.0);
    check<gg::PositionedEmbedding,
          Sequence<Residual<RmsNorm, Scale<2>, Scale<1>, Scale<4>>, Residual<RmsNorm, Scale<-1>>>>(7.0, -1.0);
    check<gg::TokenEmbedding, Sequence<Residual<RmsNorm, Scale<1>>, Residual<RmsNorm, Scale<2>, Scale<3>>>>(
        1.0, 5.0);
}
