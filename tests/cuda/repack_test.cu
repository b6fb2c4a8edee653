// Rows of every format to tiles. The same cases run on the host, one lane after the other, and on a GPU: the
// tiles must have the bytes that tests/cuda/tiles.hpp makes from the values that the host decodes.
#include "gg/cuda/repack.cuh"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "cuda/launch.cuh"
#include "cuda/random_blocks.hpp"
#include "cuda/tiles.hpp"
#include "gg/cuda/weight_format.hpp"

using cuda_test::DeviceArray;
using cuda_test::put_float;
using gg::DType;
using namespace gg::cuda;
using namespace gg::format;

namespace {

template <class Format>
constexpr bool names_agree = format_id<Format> == static_cast<int>(dtype_of<Format>);
static_assert(names_agree<F32> && names_agree<F16> && names_agree<BF16> && names_agree<Q8_0>);
static_assert(names_agree<Q4_0> && names_agree<Q4_1> && names_agree<Q5_0> && names_agree<Q5_1>);
static_assert(names_agree<IQ4_NL> && names_agree<MXFP4>);
static_assert(names_agree<Q4_K> && names_agree<Q5_K> && names_agree<Q6_K>);

template <class Format>
constexpr bool sizes_agree = Tile<Format>::bytes == TileGeometry::tile_bytes(dtype_of<Format>) &&
                             Tile<Format>::bytes == cuda_test::TileBytes<Format>::bytes;
static_assert(sizes_agree<F16> && sizes_agree<BF16> && sizes_agree<Q8_0> && sizes_agree<MXFP4>);

/// The kernel, one warp and one lane after the other.
template <class Target>
void repack_on_host(const RepackArgs& args) {
    for (unsigned long long tile = 0; tile < repack_tiles(args); ++tile) {
        unsigned char* out = args.tiles + tile * Tile<Target>::bytes;
        typename Repack<Target>::Codes codes;
        for (int lane = 0; lane < 32; ++lane)
            args.faults[repack_place(args, tile, lane).source] +=
                Repack<Target>::read(args, tile, lane, codes, out);
        for (int lane = 0; lane < 32; ++lane) Repack<Target>::write(codes, lane, out);
    }
}

/// Matrices of a source format, `sources` of them interleaved if two.
template <class Format>
struct Source {
    static constexpr std::size_t misaligned = 3;  ///< where rows begin
    int matrices, rows, columns;
    std::size_t row_bytes;
    std::vector<unsigned char> bytes;

    Source(int matrix_count, int row_count, int column_count, std::mt19937& random)
        : matrices(matrix_count),
          rows(row_count),
          columns(column_count),
          row_bytes(static_cast<std::size_t>(column_count / Format::elements) * Format::bytes),
          bytes(misaligned + static_cast<std::size_t>(matrix_count * row_count) * row_bytes) {
        cuda_test::fill_random<Format>(bytes.data() + misaligned, bytes.size() - misaligned, random);
    }
    const unsigned char* row(int i) const {
        return bytes.data() + misaligned + static_cast<std::size_t>(i) * row_bytes;
    }
    unsigned char* block(int i, int column) {
        return bytes.data() + (row(i) - bytes.data()) + column / Format::elements * Format::bytes;
    }
    float value(int i, int column) const {
        float values[Format::elements];
        Format::decode(row(i) + column / Format::elements * Format::bytes, values);
        return values[column % Format::elements];
    }
};

/// What the tile format holds for an element and for a block of 32, from the file's bytes.
template <class Target, class Format>
int expected_element(const Source<Format>& source, int row, int column) {
    const float value = source.value(row, column);
    if constexpr (dtype_of<Target> == DType::f16) {
        return float_to_half(value);
    } else if constexpr (dtype_of<Target> == DType::bf16) {
        return float_to_bfloat(value);
    } else if constexpr (dtype_of<Target> == DType::q8_0) {
        const float d = load_half(source.row(row) + column / 32 * Format::bytes);
        return d == 0.0f ? 0 : static_cast<int>(std::lround(value / d));
    } else {
        const unsigned char byte = source.row(row)[column / 32 * 17 + 1 + column % 16];
        return column % 32 < 16 ? byte & 15 : byte >> 4;
    }
}
template <class Target, class Format>
int expected_scale(const Source<Format>& source, int row, int block) {
    const unsigned char* at = source.row(row) + block * Format::bytes;
    return dtype_of<Target> == DType::mxfp4 ? at[0] : static_cast<int>(load_u16(at));
}

/// The row of a source that a row of tiles holds; false for padding.
bool source_row(int tiles_row, int rows, bool interleaved, int& source, int& row) {
    const int r = tiles_row % 16;
    source = interleaved ? r / 8 : 0;
    row = interleaved ? tiles_row / 16 * 8 + r % 8 : tiles_row;
    return row < rows;
}

constexpr unsigned char poison = 0xA5;
constexpr std::size_t guard = 64;

struct Outcome {
    std::vector<unsigned char> tiles;  ///< the guard behind
    std::vector<int> faults;
    std::vector<unsigned char> units;
};

/// Runs the kernel, or its lanes on the host.
template <class Target>
Outcome run(RepackArgs args, const std::vector<unsigned char>& first,
            const std::vector<unsigned char>& second, std::size_t offset, bool on_device) {
    Outcome out{
        std::vector<unsigned char>(repack_tiles(args) * Tile<Target>::bytes + guard, poison),
        {0, 0},
        std::vector<unsigned char>(static_cast<std::size_t>(args.matrices * repack_row_tiles(args) * 16))};
    if (!on_device) {
        args.sources[0].rows = first.data() + offset;
        args.sources[1].rows = second.data() + offset;
        args.tiles = out.tiles.data();
        args.faults = out.faults.data();
        args.row_units = out.units.data();
        repack_on_host<Target>(args);
        return out;
    }
    const DeviceArray<unsigned char> device_first(first), device_second(second), tiles(out.tiles);
    const DeviceArray<int> faults(out.faults);
    const DeviceArray<unsigned char> units(out.units);
    args.sources[0].rows = device_first.data() + offset;
    args.sources[1].rows = device_second.data() + offset;
    args.tiles = tiles.data();
    args.faults = faults.data();
    args.row_units = units.data();
    launch<Repack<Target>>(repack_blocks(args), args);
    return {tiles.read(), faults.read(), units.read()};
}

template <class Format>
RepackArgs arguments(const Source<Format>& source, bool interleaved) {
    RepackArgs args{};
    for (RepackSource& s : args.sources) s = {nullptr, source.row_bytes, format_id<Format>};
    args.matrices = source.matrices;
    args.rows = source.rows;
    args.columns = source.columns;
    args.interleaved = interleaved;
    return args;
}

template <class Target, class Format>
void check_case(int matrices, int rows, int columns, bool interleaved, bool on_device) {
    CAPTURE(std::string(gg::info(dtype_of<Format>).name), std::string(gg::info(dtype_of<Target>).name),
            matrices, rows, columns, interleaved);
    std::mt19937 random(static_cast<unsigned>(rows * 1000 + columns));
    const Source<Format> sources[2] = {{matrices, rows, columns, random}, {matrices, rows, columns, random}};
    const RepackArgs args = arguments(sources[0], interleaved);
    const Outcome found = run<Target>(args, sources[0].bytes, sources[interleaved ? 1 : 0].bytes,
                                      Source<Format>::misaligned, on_device);
    CHECK(found.faults == std::vector<int>{0, 0});

    // Padding below is packed as a row of zeros; MXFP4's exponent byte is then 0 too.
    constexpr int no_scale = dtype_of<Target> == DType::mxfp4 ? -14 : 0;
    const int padded = 16 * repack_row_tiles(args);
    long wrong = 0;
    for (int m = 0; m < matrices; ++m) {
        int s = 0, row = 0;
        const auto tiles = cuda_test::pack_tiles<Target>(
            padded, columns,
            [&](int r, int column) {
                return source_row(r, rows, interleaved, s, row)
                           ? expected_element<Target>(sources[s], m * rows + row, column)
                           : 0;
            },
            [&](int r, int block) {
                return source_row(r, rows, interleaved, s, row)
                           ? expected_scale<Target>(sources[s], m * rows + row, block)
                           : no_scale;
            });
        const std::size_t at = static_cast<std::size_t>(m) * tiles.size();
        REQUIRE(found.tiles.size() >= at + tiles.size() + guard);
        for (std::size_t i = 0; i < tiles.size(); ++i) wrong += tiles[i] != found.tiles[at + i];
        for (int r = 0; r < padded; ++r)
            for (int column = 0; column < columns; ++column) {
                float value = source_row(r, rows, interleaved, s, row)
                                  ? sources[s].value(m * rows + row, column)
                                  : 0.0f;
                if (dtype_of<Target> == DType::f16) value = half_to_float(float_to_half(value));
                wrong += cuda_test::tiles_value<Target>(found.tiles.data() + at, columns, r, column) !=
                         static_cast<double>(value);
            }
    }
    CHECK(wrong == 0);
    CHECK(found.units ==
          cuda_test::row_units<Target>({found.tiles.begin(), found.tiles.end() - guard}, columns));
    CHECK(std::all_of(found.tiles.end() - guard, found.tiles.end(),
                      [](unsigned char byte) { return byte == poison; }));
}

/// Every shape for one pair of formats.
template <class Target, class Format>
void check_pair(bool on_device) {
    constexpr int unit = Format::elements == 1 ? 1 : Format::elements;
    const int odd = unit == 1 ? 77 : unit == 32 ? 96 : 256;  // the last tile across is half full
    const int wide = unit == 1 ? 161 : unit == 32 ? 224 : 512;
    check_case<Target, Format>(1, 16, odd, false, on_device);
    check_case<Target, Format>(1, 37, wide, false, on_device);
    check_case<Target, Format>(3, 5, odd, false, on_device);
    check_case<Target, Format>(1, 8, odd, true, on_device);
    check_case<Target, Format>(2, 19, wide, true, on_device);
    check_case<Target, Format>(1, 1, unit, false, on_device);
}

void check_all_pairs(bool on_device) {
    check_pair<F16, F32>(on_device);
    check_pair<F16, F16>(on_device);
    check_pair<F16, BF16>(on_device);
    check_pair<F16, Q8_0>(on_device);
    check_pair<F16, Q4_0>(on_device);
    check_pair<F16, Q4_1>(on_device);
    check_pair<F16, Q5_0>(on_device);
    check_pair<F16, Q5_1>(on_device);
    check_pair<F16, IQ4_NL>(on_device);
    check_pair<F16, Q4_K>(on_device);
    check_pair<F16, Q5_K>(on_device);
    check_pair<F16, Q6_K>(on_device);
    check_pair<F16, MXFP4>(on_device);
    check_pair<BF16, BF16>(on_device);
    check_pair<Q8_0, Q8_0>(on_device);
    check_pair<Q8_0, Q4_0>(on_device);
    check_pair<Q8_0, Q5_0>(on_device);
    check_pair<Q8_0, IQ4_NL>(on_device);
    check_pair<MXFP4, MXFP4>(on_device);
}

/// Gate and up of different formats, which become F16.
void check_mixed_sources(bool on_device) {
    std::mt19937 random(5);
    const int rows = 11, columns = 160;
    const Source<MXFP4> gate(2, rows, columns, random);
    const Source<Q5_1> up(2, rows, columns, random);
    RepackArgs args = arguments(gate, true);
    args.sources[1] = {nullptr, up.row_bytes, format_id<Q5_1>};
    const Outcome found = run<F16>(args, gate.bytes, up.bytes, 3, on_device);
    CHECK(found.faults == std::vector<int>{0, 0});
    long wrong = 0;
    for (int m = 0; m < 2; ++m)
        for (int r = 0; r < 32; ++r)
            for (int column = 0; column < columns; ++column) {
                int s = 0, row = 0;
                float value = 0.0f;
                if (source_row(r, rows, true, s, row))
                    value = s == 0 ? gate.value(m * rows + row, column) : up.value(m * rows + row, column);
                const std::size_t at = static_cast<std::size_t>(m) * 2 * 3 * 2048;
                wrong += cuda_test::tiles_value<F16>(found.tiles.data() + at, columns, r, column) !=
                         static_cast<double>(half_to_float(float_to_half(value)));
            }
    CHECK(wrong == 0);
}

/// Faults of both sources of one interleaved matrix after `spoil` has changed the second.
template <class Target, class Format, class Spoil>
std::vector<int> faults_of(int rows, int columns, bool on_device, Spoil spoil) {
    std::mt19937 random(9);
    const Source<Format> gate(1, rows, columns, random);
    Source<Format> up(1, rows, columns, random);
    spoil(up);
    return run<Target>(arguments(gate, true), gate.bytes, up.bytes, 3, on_device).faults;
}

void check_faults(bool on_device) {
    using Faults = std::vector<int>;
    CHECK(faults_of<MXFP4, MXFP4>(9, 96, on_device, [](Source<MXFP4>& s) {
              *s.block(0, 0) = 240;  // the largest that fits
              *s.block(3, 32) = 241;
              *s.block(8, 95) = 255;
          }) == Faults{0, 2});
    CHECK(faults_of<F16, F32>(5, 33, on_device, [](Source<F32>& s) {
              put_float(s.block(0, 0), -65504.0f);  // the largest that fits
              put_float(s.block(1, 32), 65505.0f);
              put_float(s.block(4, 31), -1e30f);
              put_float(s.block(4, 32), gg::quiet_nan());
              put_float(s.block(2, 7), gg::infinity());
          }) == Faults{0, 4});
    CHECK(faults_of<F16, BF16>(2, 64, on_device, [](Source<BF16>& s) {
              cuda_test::put_16(s.block(1, 63), 0x4780);  // 65536
          }) == Faults{0, 1});
    CHECK(faults_of<F16, MXFP4>(2, 32, on_device, [](Source<MXFP4>& s) {
              unsigned char* block = s.block(1, 0);
              std::fill_n(block + 1, 16, static_cast<unsigned char>(0x10));
              block[0] = 143;  // 2^16 * 0.5 fits, and so does 0
              block[5] = 0x12;
              block[9] = 0x77;  // 1, 6 and 6
          }) == Faults{0, 3});
    CHECK(faults_of<BF16, BF16>(2, 64, on_device, [](Source<BF16>& s) {
              cuda_test::put_16(s.block(0, 5), 0x7F80);
              cuda_test::put_16(s.block(1, 6), 0xFFC0);
              cuda_test::put_16(s.block(1, 7), 0x7F7F);  // the largest
          }) == Faults{0, 2});
    CHECK(faults_of<Q8_0, Q5_0>(9, 64, on_device, [](Source<Q5_0>& s) {
              cuda_test::put_16(s.block(8, 32), 0x7C00);
              cuda_test::put_16(s.block(2, 0), 0xFE00);
              cuda_test::put_16(s.block(2, 32), 0x7BFF);  // the largest
          }) == Faults{0, 2});
}

}  // namespace

TEST_CASE("tiles hold what rows of every format hold: lanes on the host") {
    check_all_pairs(false);
    check_mixed_sources(false);
}

TEST_CASE("tiles hold what rows of every format hold: on a GPU") {
    GG_NEED_GPU();
    check_all_pairs(true);
    check_mixed_sources(true);
}

TEST_CASE("weights that a format cannot hold are counted: lanes on the host") {
    check_faults(false);
}

TEST_CASE("weights that a format cannot hold are counted: on a GPU") {
    GG_NEED_GPU();
    check_faults(true);
}
