// Products with MXFP4 at every expert shape of gpt-oss-20b: within the a-priori bound of float32 of the
// double product of the decoded weights, for one row of activations and for several, on every instruction
// set. Rows of 2880 elements are 1530 bytes, so most begin at no multiple of 4.
#include <cstring>

#include "fixture.hpp"
#include "gg/format/mxfp4.hpp"
#include "gg/host/matmul.hpp"

using namespace gg_test;

namespace {

constexpr std::size_t columns = 2880;
constexpr std::size_t row_bytes = columns / 32 * 17;
static_assert(row_bytes == 1530);

/// Which exponents the blocks of a matrix have.
enum class Scales {
    trained,  ///< 110 to 127, as trained experts have
    small,    ///< 0 to 12: elements from 2^-128 on, some of them subnormal floats
    large,    ///< 200 to 240: sums near the end of float32's range
    wide,     ///< 64 to 190: neighbours differ by up to 2^126, so the large blocks decide the sum
};

std::vector<std::byte> random_blocks(std::mt19937& random, std::size_t rows, Scales scales) {
    const auto [first, count] = scales == Scales::trained ? std::pair(110u, 18u)
                                : scales == Scales::small ? std::pair(0u, 13u)
                                : scales == Scales::large ? std::pair(200u, 41u)
                                                          : std::pair(64u, 127u);
    std::vector<std::byte> bytes(rows * row_bytes);
    for (std::size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<std::byte>(i % 17 == 0 ? first + random() % count : random() & 255u);
    return bytes;
}

/// Decodes one block by the definition, in double.
void decode_exactly(const std::byte* block, double* out) {
    static constexpr double magnitudes[8] = {0, .5, 1, 1.5, 2, 3, 4, 6};
    const double scale = std::ldexp(1.0, static_cast<int>(block[0]) - 127);
    for (int j = 0; j < 32; ++j) {
        const auto both = static_cast<unsigned>(block[1 + j % 16]);
        const unsigned code = j < 16 ? both & 15u : both >> 4;
        out[j] = (code & 8u ? -scale : scale) * magnitudes[code & 7u];
    }
}

/// The bound of one row's product: 2 * 90 + 4 additions, and each product rounded once. Subnormal results
/// are off by 2^-150 each instead.
Bounded product(const std::byte* weights, const float* x) {
    double value = 0, magnitude = 0, decoded[32];
    for (std::size_t k = 0; k < columns; ++k) {
        if (k % 32 == 0) decode_exactly(weights + k / 32 * 17, decoded);
        const double term = decoded[k % 32] * x[k];
        value += term;
        magnitude += std::fabs(term);
    }
    const double roundings = lane_additions(columns) + 1;
    return {value, roundings * unit / (1 - roundings * unit) * magnitude + columns * 0x1p-150};
}

/// y = W x for `count` rows of x.
std::vector<float> multiply(Machine& machine, const std::vector<std::byte>& weights, std::size_t rows,
                            const std::vector<float>& x, int count) {
    gg::host::Step step = machine.step();
    gg::host::Workspace::Scope scope(step.workspace);
    const gg::host::Rows in = step.workspace.rows(count, static_cast<int>(columns));
    const gg::host::Rows out = step.workspace.rows(count, static_cast<int>(rows));
    for (int i = 0; i < count; ++i)
        std::copy_n(x.data() + static_cast<std::size_t>(i) * columns, columns, in.row(i));
    const gg::host::Matrix matrix{gg::DType::mxfp4, weights.data(), static_cast<int>(columns),
                                  static_cast<int>(rows), row_bytes};
    gg::host::multiply(step, gg::host::Product{matrix, {}, in, out});
    std::vector<float> y(rows * static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i)
        std::copy_n(out.row(i), rows, y.data() + rows * static_cast<std::size_t>(i));
    return y;
}

/// Checks the products of one matrix with `count` rows, and with the first alone, on every instruction set.
void check(std::size_t rows, Scales scales, int count, unsigned seed) {
    std::mt19937 random(seed);
    const std::vector<std::byte> weights = random_blocks(random, rows, scales);
    const std::vector<float> x = random_floats(random, columns * static_cast<std::size_t>(count));
    std::vector<Bounded> want;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
        for (std::size_t r = 0; r < rows; ++r)
            want.push_back(product(weights.data() + r * row_bytes, x.data() + i * columns));
    gg::Dims dims;
    dims.kv_heads = dims.head_dim = 1;
    for (const auto set : instruction_sets()) {
        INFO(rows << " rows, scales " << static_cast<int>(scales) << ", " << gg::host::to_string(set));
        Machine machine(dims, set);
        const std::vector<float> all = multiply(machine, weights, rows, x, count);
        const std::vector<float> one = multiply(machine, weights, rows, x, 1);
        Agreement agreement;
        for (std::size_t i = 0; i < all.size(); ++i) agreement.add(all[i], want[i]);
        agreement.require(1e-4);
        CHECK(std::memcmp(one.data(), all.data(), one.size() * sizeof(float)) == 0);
    }
}

}  // namespace

TEST_CASE("MXFP4 products at the shapes of gpt-oss-20b's experts, whole matrices") {
    // gate, up and down of an expert are [2880, 2880] each; a file of the fused layout has 5760 rows.
    check(2880, Scales::trained, 1, 1);
}

TEST_CASE("MXFP4 products at those row lengths for several rows and at the edges of the scale") {
    for (const Scales scales : {Scales::trained, Scales::small, Scales::large, Scales::wide})
        for (const std::size_t rows : {std::size_t{45}, std::size_t{64}})
            check(rows, scales, 3, 2 + static_cast<unsigned>(scales));
}
