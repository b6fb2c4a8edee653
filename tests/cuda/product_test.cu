// Products of many rows against double. A sum of K products of exact operands may be off by K 2^-24 times the
// sum of the products' magnitudes (tensor cores add 16 columns with a few truncations, then FP32 additions
// follow, one for every 16 or 32 columns), and each rounding of a result by 2^-24 of it.
#include <string>

#include "cuda/prefill.cuh"
#include "cuda/tiles.hpp"
#include "gg/block/gelu.hpp"
#include "gg/block/swiglu.hpp"
#include "gg/core/dtype.hpp"
#include "gg/cuda/product_variant.cuh"
#include "gg/format/visit.hpp"

using namespace prefill_test;
using cuda_test::pack_tiles;
using cuda_test::tiles_value;
namespace cuda = gg::cuda;
namespace format = gg::format;

namespace {

constexpr double rounding = 0x1p-24;

/// Tiles of random weights, and their values.
template <class Format>
struct RandomWeights {
    int rows, columns;
    std::vector<unsigned char> tiles;
    std::vector<double> values;

    RandomWeights(Random& random, int row_count, int column_count) : rows(row_count), columns(column_count) {
        tiles = pack_tiles<Format>(
            rows, columns, [&](int, int) { return element(random); },
            [&](int, int) { return scale(random); });
        for (int row = 0; row < rows; ++row)
            for (int column = 0; column < columns; ++column)
                values.push_back(tiles_value<Format>(tiles.data(), columns, row, column));
    }
    const double* row(int i) const {
        return values.data() + static_cast<std::size_t>(i) * static_cast<std::size_t>(columns);
    }

  private:
    static int element(Random& random) {
        if constexpr (std::is_same_v<Format, format::F16>) return random_half(random, 0, 14);
        if constexpr (std::is_same_v<Format, format::BF16>) return random_bfloat(random, 117, 127);
        if constexpr (std::is_same_v<Format, format::Q8_0>) return random_int(random, -128, 127);
        return random_int(random, 0, 15);
    }
    static int scale(Random& random) {
        if constexpr (std::is_same_v<Format, format::Q8_0>) return random_half(random, 4, 9);
        return random_int(random, 116, 127);
    }
};

/// A product's sum and the sum of magnitudes.
struct Sum {
    double value = 0, magnitude = 0;
};

template <class Operand>
Sum dot(const double* weights, const std::vector<double>& x, std::size_t columns) {
    Sum sum;
    for (std::size_t k = 0; k < columns; ++k) {
        sum.value += weights[k] * x[k];
        sum.magnitude += std::abs(weights[k] * x[k]);
    }
    return sum;
}

/// All sums of a product, [rows][M].
template <class Format, class Operand>
std::vector<Sum> reference(const RandomWeights<Format>& w, const RandomOperand<Operand>& x) {
    std::vector<Sum> sums;
    const auto columns = static_cast<std::size_t>(w.columns);
    std::vector<double> row(columns);
    for (int r = 0; r < x.rows; ++r) {
        for (std::size_t k = 0; k < columns; ++k) row[k] = x.value(r, static_cast<int>(k));
        for (int m = 0; m < w.rows; ++m) sums.push_back(dot<Operand>(w.row(m), row, columns));
    }
    return sums;
}

double product_bound(const Sum& sum, int columns) {
    return columns * rounding * sum.magnitude + 2 * rounding * std::abs(sum.value);
}

/// What a variant may err by. Products of warpgroups round weights in Q8_0 to FP16, and those in MXFP4 whose
/// block is 2^-20 of its row's largest.
template <class Format>
double variant_bound(int variant, const Sum& sum, int columns) {
    const bool rounded = variant >= cuda::product_tilings && std::is_same_v<Format, format::Q8_0>;
    return product_bound(sum, columns) + (rounded ? 0x1p-11 * sum.magnitude : 0.0);
}

template <class Stage>
cuda::LaunchShape shape_of(int variant, int row_tiles, int rows, int experts) {
    return cuda::variant_launch(variant, Stage::Tile::bytes, Stage::Tile::Operand::planes, row_tiles, rows,
                                experts);
}

template <class Format>
constexpr int variants =
    cuda::Tile<Format>::Operand::planes == 1 ? cuda::product_variants : cuda::product_tilings;

std::size_t size(int rows, int width) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(width);
}

/// Runs f with 0 .. the number of tilings - 1 as a constant.
template <int count, class F>
void for_each_index(F f) {
    if constexpr (count > 0) {
        for_each_index<count - 1>(f);
        f(std::integral_constant<int, count - 1>{});
    }
}

/// Dense products of 1 to 300 rows in every tiling, with a bias.
template <class Format, int columns, int width>
void check_dense(const std::vector<int>& row_counts) {
    using Operand = typename cuda::Tile<Format>::Operand;
    Random random(columns + width);
    const RandomWeights<Format> w(random, width, columns);
    const RandomOperand<Operand> x(random, *std::max_element(row_counts.begin(), row_counts.end()), columns);
    const std::vector<float> bias = random_floats(random, width);
    const std::vector<Sum> sums = reference(w, x);
    const DeviceArray<unsigned char> tiles(w.tiles);
    const DeviceArray<unsigned char> units(cuda_test::row_units<Format>(w.tiles, columns));
    const DeviceArray<float> device_bias(bias);
    for (const int rows : row_counts) {
        // Exactly the rows that the product may read.
        std::vector<unsigned short> part;
        for (int p = 0; p < Operand::planes; ++p)
            part.insert(part.end(), x.bits.begin() + static_cast<std::ptrdiff_t>(p * x.plane()),
                        x.bits.begin() + static_cast<std::ptrdiff_t>(p * x.plane() + size(rows, x.stride)));
        const DeviceArray<unsigned short> device_x(part);
        for_each_index<variants<Format>>([&](auto index) {
            constexpr int tiling = decltype(index)::value;
            if (tiling >= cuda::product_tilings && !cuda_test::runs_warpgroups()) return;
            using Stage = cuda::ProductVariant<Format, columns, cuda::StoreProduct<width>, tiling>;
            INFO(std::string(gg::info(format::dtype_of<Format>).name)
                 << ", K " << columns << ", M " << width << ", rows " << rows << ", tiling " << tiling);
            const Guarded<float> y(size(rows, width)), again(size(rows, width));
            cuda::ProductArgs args{};
            args.tiles = tiles.data();
            args.row_units = units.data();
            args.x = device_x.data();
            args.x_plane = size(rows, x.stride);
            args.rows = rows;
            args.bias = device_bias.data();
            args.y = y.data();
            const cuda::LaunchShape shape = shape_of<Stage>(tiling, cuda::row_tiles(width), rows, 0);
            launch_and_wait<Stage>(shape, args);
            args.y = again.data();
            launch_and_wait<Stage>(shape, args);
            const std::vector<float> found = y.read();
            CHECK(same_bits(found, again.read()));
            Worst worst;
            for (std::size_t i = 0; i < found.size(); ++i) {
                const double b = static_cast<double>(bias[i % width]);
                worst.see(static_cast<double>(found[i]), sums[i].value + b,
                          variant_bound<Format>(tiling, sums[i], columns) +
                              rounding * (std::abs(sums[i].value) + std::abs(b)));
            }
            CHECK(worst.ratio() <= 1.0);
        });
    }
}

template <class Format>
void check_dense_shapes() {
    check_dense<Format, 320, 1000>({1, 9, 300});
    check_dense<Format, 72, 60>({1, 9, 63, 130, 300});
    check_dense<Format, 2880, 5>({9, 63});
}

/// Rows of a grouped product.
struct Groups {
    std::vector<int> offsets, x_rows;

    Groups(Random& random, const std::vector<int>& counts, int source_rows) : offsets{0} {
        for (const int count : counts) offsets.push_back(offsets.back() + count);
        for (int i = 0; i < offsets.back(); ++i) x_rows.push_back(random_int(random, 0, source_rows - 1));
    }
    int experts() const { return static_cast<int>(offsets.size()) - 1; }
    int rows() const { return offsets.back(); }
    int expert_of(int row) const {
        return static_cast<int>(std::upper_bound(offsets.begin(), offsets.end(), row) - offsets.begin()) - 1;
    }
};

/// Experts with the given numbers of rows, gathered through a list or as they lie.
template <class Format, int columns, int width>
void check_grouped(const std::vector<int>& counts, bool gathered) {
    using Operand = typename cuda::Tile<Format>::Operand;
    Random random(static_cast<unsigned>(columns + width + gathered));
    const int source_rows = 57;
    const Groups groups(random, counts, source_rows);
    const RandomOperand<Operand> x(random, gathered ? source_rows : groups.rows(), columns);
    std::vector<RandomWeights<Format>> weights;
    std::vector<unsigned char> all;
    for (int e = 0; e < groups.experts(); ++e) {
        weights.emplace_back(random, width, columns);
        all.insert(all.end(), weights.back().tiles.begin(), weights.back().tiles.end());
    }
    const std::vector<float> bias = random_floats(random, size(groups.experts(), width));
    const DeviceArray<unsigned char> tiles(all);
    const DeviceArray<unsigned char> units(cuda_test::row_units<Format>(all, columns));
    const DeviceArray<unsigned short> device_x(x.bits);
    const DeviceArray<float> device_bias(bias);
    const DeviceArray<int> offsets(groups.offsets), x_rows(groups.x_rows);
    std::vector<double> row(columns);
    std::vector<Sum> sums;
    for (int r = 0; r < groups.rows(); ++r) {
        const int source = gathered ? groups.x_rows[static_cast<std::size_t>(r)] : r;
        for (int k = 0; k < columns; ++k) row[static_cast<std::size_t>(k)] = x.value(source, k);
        for (int m = 0; m < width; ++m)
            sums.push_back(
                dot<Operand>(weights[static_cast<std::size_t>(groups.expert_of(r))].row(m), row, columns));
    }
    for_each_index<variants<Format>>([&](auto index) {
        constexpr int tiling = decltype(index)::value;
        if (tiling >= cuda::product_tilings && !cuda_test::runs_warpgroups()) return;
        using Stage = cuda::ProductVariant<Format, columns, cuda::StoreProduct<width>, tiling>;
        INFO(std::string(gg::info(format::dtype_of<Format>).name)
             << ", experts " << groups.experts() << ", gathered " << gathered << ", tiling " << tiling);
        const Guarded<float> y(size(groups.rows(), width));
        cuda::ProductArgs args{};
        args.tiles = tiles.data();
        args.row_units = units.data();
        args.expert_bytes = weights[0].tiles.size();
        args.x = device_x.data();
        args.x_plane = x.plane();
        args.x_rows = gathered ? x_rows.data() : nullptr;
        args.offsets = offsets.data();
        args.experts = groups.experts();
        args.rows = groups.rows();
        args.bias = device_bias.data();
        args.y = y.data();
        launch_and_wait<Stage>(
            shape_of<Stage>(tiling, cuda::row_tiles(width), groups.rows(), groups.experts()), args);
        const std::vector<float> found = y.read();
        Worst worst;
        for (std::size_t i = 0; i < found.size(); ++i) {
            const auto expert = static_cast<std::size_t>(groups.expert_of(static_cast<int>(i / width)));
            const double b = static_cast<double>(bias[expert * width + i % width]);
            worst.see(static_cast<double>(found[i]), sums[i].value + b,
                      variant_bound<Format>(tiling, sums[i], columns) +
                          rounding * (std::abs(sums[i].value) + std::abs(b)));
        }
        CHECK(worst.ratio() <= 1.0);
    });
}

/// A bound on |a(u') - a(u)| for |u' - u| <= error, and on what the function itself rounds.
template <class Activation>
double activation_bound(double value, double gate_error, double up_error) {
    // Steepest slopes: clamped SwiGLU 8.8 for the gate (1.1 times at most 8) and 7 for up; GELU 1.13.
    const double slopes = Activation::gated ? 8.8 * gate_error + 7.0 * up_error : 1.13 * up_error;
    return slopes + 32 * rounding * (std::abs(value) + 1e-3);
}

/// An activation into an operand buffer; gated tiles interleave 8 gate and 8 up rows.
template <class Format, int columns, class Activation, int width, class NextOperand, int tiling>
void check_activation(int rows) {
    INFO("gated " << Activation::gated << ", width " << width << ", rows " << rows << ", tiling " << tiling);
    using Operand = typename cuda::Tile<Format>::Operand;
    using Epilogue = cuda::ActivateProduct<Activation, width, NextOperand>;
    using Stage = cuda::ProductVariant<Format, columns, Epilogue, tiling>;
    Random random(static_cast<unsigned>(rows + width));
    // Rows of the stacked matrix beyond the last feature are padding, zeros in a real file's tiles; here
    // they are not, to see that nothing of them is stored.
    const RandomWeights<Format> w(random, Epilogue::row_tiles * 16, columns);
    const RandomOperand<Operand> x(random, rows, columns);
    const std::vector<float> gate_bias = random_floats(random, width), up_bias = random_floats(random, width);
    const DeviceArray<unsigned char> tiles(w.tiles);
    const DeviceArray<unsigned char> units(cuda_test::row_units<Format>(w.tiles, columns));
    const DeviceArray<unsigned short> device_x(x.bits);
    const DeviceArray<float> device_gate_bias(gate_bias), device_up_bias(up_bias);
    const DeviceArray<int> overflows(std::vector<int>{0});
    const int stride = cuda::operand_stride(width);
    const Guarded<unsigned short> operand(size(rows, stride) * NextOperand::planes);
    cuda::ProductArgs args{};
    args.tiles = tiles.data();
    args.row_units = units.data();
    args.x = device_x.data();
    args.x_plane = x.plane();
    args.rows = rows;
    args.bias = device_gate_bias.data();
    args.up_bias = device_up_bias.data();
    args.operand = operand.data();
    args.operand_plane = size(rows, stride);
    args.overflows = overflows.data();
    launch_and_wait<Stage>(shape_of<Stage>(tiling, Epilogue::covered_row_tiles, rows, 0), args);
    const std::vector<unsigned short> found = operand.read();
    const std::vector<Sum> sums = reference(w, x);
    Worst worst;
    long padding = 0;
    for (int row = 0; row < rows; ++row)
        for (int f = 0; f < stride; ++f) {
            const std::size_t at = size(row, stride) + static_cast<std::size_t>(f);
            if (f >= width) {
                for (int p = 0; p < NextOperand::planes; ++p)
                    padding += found[at + static_cast<std::size_t>(p) * args.operand_plane] != 0;
                continue;
            }
            const auto feature = static_cast<std::size_t>(f);
            const auto sum = [&](int tile_row) {
                return sums[size(row, w.rows) + static_cast<std::size_t>(tile_row)];
            };
            const Sum first = sum(Activation::gated ? f / 8 * 16 + f % 8 : f);
            const double gate = first.value + static_cast<double>(gate_bias[feature]);
            const double gate_error =
                variant_bound<Format>(tiling, first, columns) + 2 * rounding * std::abs(gate);
            double value = 0, bound = 0;
            if constexpr (Activation::gated) {
                const Sum second = sum(f / 8 * 16 + 8 + f % 8);
                const double up = second.value + static_cast<double>(up_bias[feature]);
                const double g = std::min(gate, 7.0), u = std::max(std::min(up, 7.0), -7.0);
                value = g / (1 + std::exp(-1.702 * g)) * (u + 1);
                bound = activation_bound<Activation>(
                    value, gate_error,
                    variant_bound<Format>(tiling, second, columns) + 2 * rounding * std::abs(up));
            } else {
                const double u = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate);
                value = gate / (1 + std::exp(-2 * u));
                bound = activation_bound<Activation>(value, 0, gate_error);
            }
            worst.see(operand_value<NextOperand>(found, args.operand_plane, at), value,
                      bound + operand_rounding<NextOperand>(value));
        }
    CHECK(worst.ratio() <= 1.0);
    CHECK(padding == 0);
    CHECK(overflows.read()[0] == 0);
}

/// Not an activation of any model: it leaves what FP16 cannot hold.
struct Identity {
    static constexpr bool gated = false;
    GG_HD GG_INLINE static float apply(float x) { return x; }
};

}  // namespace

TEST_CASE("products of many rows match double in every tiling: F16") {
    GG_NEED_GPU();
    check_dense_shapes<format::F16>();
}
TEST_CASE("products of many rows match double in every tiling: BF16") {
    GG_NEED_GPU();
    check_dense_shapes<format::BF16>();
}
TEST_CASE("products of many rows match double in every tiling: Q8_0") {
    GG_NEED_GPU();
    check_dense_shapes<format::Q8_0>();
}
TEST_CASE("products of many rows match double in every tiling: MXFP4") {
    GG_NEED_GPU();
    check_dense_shapes<format::MXFP4>();
}

TEST_CASE("grouped products find their experts' rows, empty experts and uneven loads included") {
    GG_NEED_GPU();
    check_grouped<format::MXFP4, 320, 60>({0, 37, 0, 133, 1, 0}, true);
    check_grouped<format::MXFP4, 320, 60>({0, 37, 0, 133, 1, 0}, false);
    check_grouped<format::BF16, 96, 40>({200}, true);
    std::vector<int> many(70, 0);  // more than one group of 32
    many[2] = 17;
    many[31] = 3;
    many[32] = 65;
    many[69] = 8;
    check_grouped<format::Q8_0, 96, 24>(many, true);
}

TEST_CASE("activations of products become operands with zero padding") {
    GG_NEED_GPU();
    using cuda::BfloatPairOperand;
    using cuda::HalfOperand;
    check_activation<format::MXFP4, 320, gg::ClampedSwiglu, 72, HalfOperand, 0>(9);
    check_activation<format::MXFP4, 320, gg::ClampedSwiglu, 72, BfloatPairOperand, 2>(63);
    check_activation<format::MXFP4, 320, gg::ClampedSwiglu, 325, HalfOperand, 3>(130);
    check_activation<format::F16, 96, gg::ClampedSwiglu, 64, HalfOperand, 1>(30);
    check_activation<format::Q8_0, 96, gg::GeluTanh, 100, HalfOperand, 3>(131);
    check_activation<format::BF16, 96, gg::GeluTanh, 197, BfloatPairOperand, 1>(33);
    check_activation<format::F16, 96, gg::GeluTanh, 72, HalfOperand, 0>(1);
    if (!cuda_test::runs_warpgroups()) return;
    check_activation<format::MXFP4, 320, gg::ClampedSwiglu, 325, HalfOperand, 4>(130);
    check_activation<format::MXFP4, 320, gg::ClampedSwiglu, 325, HalfOperand, 5>(130);
    check_activation<format::Q8_0, 96, gg::GeluTanh, 100, HalfOperand, 5>(131);
}

TEST_CASE("what FP16 cannot hold is limited and counted") {
    GG_NEED_GPU();
    constexpr int width = 64, columns = 64, rows = 3;
    using Epilogue = cuda::ActivateProduct<Identity, width, cuda::HalfOperand>;
    using Stage = cuda::Product<format::F16, columns, Epilogue, 0>;
    Random random(5);
    const RandomWeights<format::F16> w(random, width, columns);
    const RandomOperand<cuda::HalfOperand> x(random, rows, columns);
    std::vector<float> bias(width, 0.0f);
    bias[7] = 1e6f;
    bias[40] = -1e6f;
    const DeviceArray<unsigned char> tiles(w.tiles);
    const DeviceArray<unsigned char> units(cuda_test::row_units<format::F16>(w.tiles, columns));
    const DeviceArray<unsigned short> device_x(x.bits);
    const DeviceArray<float> device_bias(bias);
    const DeviceArray<int> overflows(std::vector<int>{0});
    const Guarded<unsigned short> operand(size(rows, width));
    cuda::ProductArgs args{};
    args.tiles = tiles.data();
    args.row_units = units.data();
    args.x = device_x.data();
    args.x_plane = x.plane();
    args.rows = rows;
    args.bias = device_bias.data();
    args.operand = operand.data();
    args.operand_plane = size(rows, width);
    args.overflows = overflows.data();
    launch_and_wait<Stage>(shape_of<Stage>(0, Epilogue::covered_row_tiles, rows, 0), args);
    const std::vector<unsigned short> found = operand.read();
    for (std::size_t row = 0; row < rows; ++row) {
        CHECK(half_double(found[row * width + 7]) == 65504.0);
        CHECK(half_double(found[row * width + 40]) == -65504.0);
    }
    CHECK(overflows.read()[0] == 2 * rows);
}

TEST_CASE("products are added to the residual") {
    GG_NEED_GPU();
    constexpr int width = 60, columns = 320, rows = 70;
    Random random(6);
    const RandomWeights<format::Q8_0> w(random, width, columns);
    const RandomOperand<cuda::HalfOperand> x(random, rows, columns);
    const std::vector<float> bias = random_floats(random, width),
                             before = random_floats(random, rows * width);
    const std::vector<Sum> sums = reference(w, x);
    const DeviceArray<unsigned char> tiles(w.tiles);
    const DeviceArray<unsigned char> units(cuda_test::row_units<format::Q8_0>(w.tiles, columns));
    const DeviceArray<unsigned short> device_x(x.bits);
    const DeviceArray<float> device_bias(bias);
    for_each_index<variants<format::Q8_0>>([&](auto index) {
        constexpr int tiling = decltype(index)::value;
        if (tiling >= cuda::product_tilings && !cuda_test::runs_warpgroups()) return;
        using Stage = cuda::ProductVariant<format::Q8_0, columns, cuda::AddProduct<width>, tiling>;
        INFO("tiling " << tiling);
        const DeviceArray<float> y(before), without_bias(before);
        cuda::ProductArgs args{};
        args.tiles = tiles.data();
        args.row_units = units.data();
        args.x = device_x.data();
        args.x_plane = x.plane();
        args.rows = rows;
        args.bias = device_bias.data();
        args.y = y.data();
        launch_and_wait<Stage>(shape_of<Stage>(tiling, cuda::row_tiles(width), rows, 0), args);
        args.bias = nullptr;
        args.y = without_bias.data();
        launch_and_wait<Stage>(shape_of<Stage>(tiling, cuda::row_tiles(width), rows, 0), args);
        const std::vector<float> found = y.read(), unbiased = without_bias.read();
        Worst worst, worst_unbiased;
        for (std::size_t i = 0; i < found.size(); ++i) {
            const double b = static_cast<double>(bias[i % width]), r = static_cast<double>(before[i]);
            const double bound = variant_bound<format::Q8_0>(tiling, sums[i], columns) +
                                 2 * rounding * (std::abs(sums[i].value) + std::abs(b) + std::abs(r));
            worst.see(static_cast<double>(found[i]), r + sums[i].value + b, bound);
            worst_unbiased.see(static_cast<double>(unbiased[i]), r + sums[i].value, bound);
        }
        CHECK(worst.ratio() <= 1.0);
        CHECK(worst_unbiased.ratio() <= 1.0);
    });
}

TEST_CASE("the variant of a product follows the rows at hand") {
    const auto choose = [](int row_tiles, int rows, int experts, bool warpgroups = false) {
        return cuda::choose_product(row_tiles, rows, experts, 132, warpgroups);
    };
    CHECK(choose(320, 9, 0) == 0);
    CHECK(choose(320, 17, 0) == 1);
    CHECK(choose(320, 64, 0) == 2);
    CHECK(choose(320, 512, 0) == 3);
    CHECK(choose(180, 130, 0) == 2);        // too few blocks of 128 rows
    CHECK(choose(360, 4 * 2048, 32) == 3);  // 256 rows an expert
    CHECK(choose(360, 4 * 100, 32) == 0);   // 13 rows an expert
    // With warpgroups.
    CHECK(choose(360, 4 * 100, 32, true) == 0);
    CHECK(choose(360, 4 * 512, 32, true) == 5);
    CHECK(choose(180, 4 * 512, 32, true) == 5);
    CHECK(choose(320, 128, 0, true) == 2);  // fewer blocks than half the multiprocessors
    CHECK(choose(320, 512, 0, true) == 5);  // 160 blocks of 128 rows, 80 of 256
    CHECK(choose(180, 512, 0, true) == 4);  // 92 and 48
    CHECK(choose(180, 8192, 0, true) == 5);
    for (const cuda::Tiling& tiling : cuda::tilings)
        for (const int bytes : {544, 1088, 2048}) CHECK(tiling.stages(bytes, bytes == 2048 ? 2 : 1) >= 2);
}
