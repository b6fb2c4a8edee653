// Products with weights of every format: within the bound of float32 of the double product of the decoded
// weights, and the same bits for one row or many, for any number of threads.
#include <cstring>

#include "fixture.hpp"
#include "gg/format/encode.hpp"
#include "gg/format/validate.hpp"
#include "gg/host/matmul.hpp"

using namespace gg_test;

namespace {

/// Random bytes of a matrix whose scales are finite and of moderate size.
std::vector<std::byte> random_weights(std::mt19937& random, gg::DType type, int columns, int rows) {
    const gg::DTypeInfo& geometry = gg::info(type);
    const auto elements = static_cast<std::size_t>(columns) * static_cast<std::size_t>(rows);
    std::vector<std::byte> bytes(elements / geometry.elements * geometry.bytes);
    if (geometry.elements == 1) {
        gg::format::encode_row(type, random_floats(random, elements).data(), elements, bytes.data());
        return bytes;
    }
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 255u);
    gg::format::visit(type, [&](auto format) {
        using Format = decltype(format);
        constexpr gg::format::HalfScales scales = gg::format::half_scales<Format>();
        for (std::size_t at = 0; at < bytes.size(); at += Format::bytes) {
            if (type == gg::DType::mxfp4) bytes[at] = static_cast<std::byte>(120u + random() % 12u);
            for (int i = 0; i < scales.count; ++i) {
                const float scale = random_floats(random, 1, 0.1f)[0];
                gg::format::encode_row(gg::DType::f16, &scale, 1,
                                       &bytes[at + static_cast<std::size_t>(scales.offset + 2 * i)]);
            }
        }
    });
    return bytes;
}

/// Copies rows [count][width] into padded ones.
gg::host::Rows padded(gg::host::Workspace& workspace, const float* x, int count, int width) {
    const gg::host::Rows rows = workspace.rows(count, width);
    for (int i = 0; i < count; ++i) std::copy_n(x + i * width, width, rows.row(i));
    return rows;
}

/// W x + b for `count` rows of x, as [count][rows].
std::vector<float> multiply(Machine& machine, const gg::host::Matrix& weight, const std::vector<float>* bias,
                            const float* x, int count) {
    gg::host::Step step = machine.step();
    gg::host::Workspace::Scope scope(step.workspace);
    const gg::host::Rows in = padded(step.workspace, x, count, weight.columns);
    const gg::host::Rows out = step.workspace.rows(count, weight.rows);
    const gg::host::Vector b = bias ? gg::host::Vector{bias->data(), bias->size()} : gg::host::Vector{};
    gg::host::multiply(step, gg::host::Product{weight, b, in, out});
    std::vector<float> y;
    for (int i = 0; i < count; ++i) y.insert(y.end(), out.row(i), out.row(i) + weight.rows);
    return y;
}

bool same_bits(const std::vector<float>& a, const float* b) {
    return std::memcmp(a.data(), b, a.size() * sizeof(float)) == 0;
}

constexpr int most = 9;  // rows of x

gg::Dims any_dims() {
    gg::Dims dims;
    dims.kv_heads = dims.head_dim = 1;
    return dims;
}

class Case {
  public:
    Case(gg::DType type, int columns, int rows)
        : random_(static_cast<unsigned>(columns * 100 + rows)),
          bytes_(random_weights(random_, type, columns, rows)),
          bias_(random_floats(random_, static_cast<std::size_t>(rows))),
          x_(random_floats(random_, static_cast<std::size_t>(columns * most))) {
        weight_ = {type, bytes_.data(), columns, rows, bytes_.size() / static_cast<std::size_t>(rows)};
    }

    void check(gg::host::InstructionSet set, bool biased) {
        INFO(gg::info(weight_.type).name << " [" << weight_.columns << ", " << weight_.rows << "], "
                                         << gg::host::to_string(set) << (biased ? ", bias" : ""));
        Machine machine(any_dims(), set);
        const std::vector<float>* bias = biased ? &bias_ : nullptr;
        const std::vector<float> all = multiply(machine, weight_, bias, x_.data(), most);
        check_bound(all, biased);
        bool alike = true;
        for (int count = 1; count < most; ++count)
            alike = alike && same_bits(multiply(machine, weight_, bias, x_.data(), count), all.data());
        CHECK(alike);  // the first rows of fewer
        for (int i = 0; i < most; ++i)
            alike = alike && same_bits(multiply(machine, weight_, bias, x_.data() + i * weight_.columns, 1),
                                       all.data() + i * weight_.rows);
        CHECK(alike);  // each row alone
        if (weight_.rows > 32) {
            for (const int threads : {2, 3}) {
                Machine team(any_dims(), set, threads);
                alike = alike && same_bits(multiply(team, weight_, bias, x_.data(), most), all.data());
                alike = alike && same_bits(multiply(team, weight_, bias, x_.data(), 1), all.data());
            }
            CHECK(alike);
        }
        if (set == gg::host::InstructionSet::avx512) {
            Machine narrower(any_dims(), gg::host::InstructionSet::avx2);
            CHECK(same_bits(multiply(narrower, weight_, bias, x_.data(), most), all.data()));
        }
    }

  private:
    /// Each product is rounded once and passes through the additions of its lane, of the tree and of the
    /// bias: the bound of `linear`, whose terms are exact weights times exact inputs.
    void check_bound(const std::vector<float>& y, bool biased) const {
        const auto columns = static_cast<std::size_t>(weight_.columns),
                   rows = static_cast<std::size_t>(weight_.rows);
        std::vector<float> decoded(columns * rows);
        for (std::size_t r = 0; r < rows; ++r)
            gg::format::decode_row(weight_.type, weight_.data + r * weight_.row_bytes, columns,
                                   decoded.data() + r * columns);
        Agreement agreement;
        for (std::size_t i = 0; i < most; ++i) {
            const Row want = linear(decoded, biased ? &bias_ : nullptr, row_of(x_, i, columns), 0, rows);
            for (std::size_t r = 0; r < rows; ++r) agreement.add(y[i * rows + r], want[r]);
        }
        agreement.require(1e-4);
    }

    std::mt19937 random_;
    std::vector<std::byte> bytes_;
    std::vector<float> bias_, x_;
    gg::host::Matrix weight_;
};

}  // namespace

TEST_CASE("products of every format, any number of rows, for every instruction set") {
    for (const gg::DTypeInfo& type : gg::dtypes) {
        const std::vector<int> widths = type.elements == 1    ? std::vector<int>{1, 37, 51, 320}
                                        : type.elements == 32 ? std::vector<int>{32, 96, 320}
                                                              : std::vector<int>{256, 768};
        for (const int columns : widths)
            for (const int rows : {1, 3, 7, 33, 150}) {
                Case product(type.type, columns, rows);
                for (const auto set : instruction_sets())
                    for (const bool biased : {false, true}) product.check(set, biased);
            }
    }
}

TEST_CASE("several products in one call are those of each alone") {
    // Different widths, formats and numbers of rows share one loop, as the experts of a mixture do.
    std::mt19937 random(3);
    const std::vector<float> x = random_floats(random, 320 * 5);
    const std::vector<float> bias = random_floats(random, 40);
    const auto q8 = random_weights(random, gg::DType::q8_0, 320, 40);
    const auto half = random_weights(random, gg::DType::f16, 51, 33);
    const gg::host::Matrix first{gg::DType::q8_0, q8.data(), 320, 40, q8.size() / 40};
    const gg::host::Matrix second{gg::DType::f16, half.data(), 51, 33, half.size() / 33};
    for (const auto set : instruction_sets())
        for (const int threads : {1, 3}) {
            Machine machine(any_dims(), set, threads);
            gg::host::Step step = machine.step();
            gg::host::Workspace& w = step.workspace;
            const gg::host::Rows in = padded(w, x.data(), 5, 320), one = padded(w, x.data(), 1, 51);
            const gg::host::Rows a = w.rows(5, 40), b = w.rows(1, 33), none{nullptr, 0, 51, 64};
            gg::host::multiply(step, gg::host::Product{first, {bias.data(), bias.size()}, in, a},
                               gg::host::Product{second, {}, none, none},
                               gg::host::Product{second, {}, one, b});
            Machine alone(any_dims(), set);
            const std::vector<float> want_a = multiply(alone, first, &bias, x.data(), 5);
            const std::vector<float> want_b = multiply(alone, second, nullptr, x.data(), 1);
            for (int i = 0; i < 5; ++i)
                CHECK(std::memcmp(a.row(i), want_a.data() + i * 40, 40 * sizeof(float)) == 0);
            CHECK(same_bits(want_b, b.row(0)));
        }
}
