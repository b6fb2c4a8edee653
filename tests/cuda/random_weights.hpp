// Random weights of the tests of decoding's stages, in each format of tiles: values for the reference, tiles
// for the device.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda/tiles.hpp"
#include "gg/core/device.hpp"

namespace cuda_test {

/// How many elements a buffer has.
constexpr std::size_t elements(int a, int b = 1, int c = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
}

/// splitmix64.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u) {}

    std::uint32_t bits() {
        std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return static_cast<std::uint32_t>((z ^ (z >> 31)) >> 32);
    }
    int below(int n) { return static_cast<int>(bits() % static_cast<std::uint32_t>(n)); }
    float between(float low, float high) {
        return low + (high - low) * static_cast<float>(bits()) * 0x1p-32f;
    }
    std::vector<float> floats(std::size_t count, float low, float high) {
        std::vector<float> values(count);
        for (float& value : values) value = between(low, high);
        return values;
    }

  private:
    std::uint64_t state_;
};

/// Random elements and scales of a format, as pack_tiles takes them.
template <class Format>
struct Codes;
template <>
struct Codes<gg::format::F16> {
    static int element(Random& r) { return (r.below(2) << 15) | ((8 + r.below(6)) << 10) | r.below(1024); }
    static int scale(Random&) { return 0; }
    static float value(int element, int) { return gg::format::half_to_float(static_cast<unsigned>(element)); }
};
template <>
struct Codes<gg::format::BF16> {
    static int element(Random& r) { return (r.below(2) << 15) | ((120 + r.below(6)) << 7) | r.below(128); }
    static int scale(Random&) { return 0; }
    static float value(int element, int) { return gg::float_from_bits(static_cast<unsigned>(element) << 16); }
};
template <>
struct Codes<gg::format::Q8_0> {
    static int element(Random& r) { return r.below(256) - 128; }
    static int scale(Random& r) { return (r.below(2) << 15) | ((5 + r.below(3)) << 10) | r.below(1024); }
    static float value(int element, int scale) {
        return gg::format::half_to_float(static_cast<unsigned>(scale)) * static_cast<float>(element);
    }
};
template <>
struct Codes<gg::format::MXFP4> {
    static int element(Random& r) { return r.below(16); }
    static int scale(Random& r) { return 120 + r.below(4); }
    static float value(int element, int scale) {
        constexpr float magnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
        const float magnitude = std::ldexp(magnitudes[element & 7], scale - 127);
        return element & 8 ? -magnitude : magnitude;
    }
};

/// A random matrix: rows of values for the reference, tiles for the device. Row r of the tiles is row
/// row_of(r) of the values, or zeros if that is negative.
struct Matrix {
    int rows = 0, columns = 0;
    std::vector<float> values;
    std::vector<unsigned char> tiles;

    const float* row(int r) const { return values.data() + static_cast<std::size_t>(r) * columns; }
};

template <class Format, class RowOf>
Matrix random_matrix(int rows, int columns, int tile_rows, Random& random, const RowOf& row_of) {
    const int blocks = (columns + 31) / 32;
    std::vector<int> codes(static_cast<std::size_t>(rows) * columns),
        scales(static_cast<std::size_t>(rows) * blocks);
    for (int& code : codes) code = Codes<Format>::element(random);
    for (int& scale : scales) scale = Codes<Format>::scale(random);
    Matrix m{rows, columns, std::vector<float>(codes.size()), {}};
    const auto at = [&](int r, int c) { return static_cast<std::size_t>(r) * columns + c; };
    const auto scale_at = [&](int r, int b) { return static_cast<std::size_t>(r) * blocks + b; };
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c)
            m.values[at(r, c)] = Codes<Format>::value(codes[at(r, c)], scales[scale_at(r, c / 32)]);
    m.tiles = pack_tiles<Format>(
        tile_rows, columns, [&](int r, int c) { return row_of(r) < 0 ? 0 : codes[at(row_of(r), c)]; },
        [&](int r, int b) { return row_of(r) < 0 ? 100 : scales[scale_at(row_of(r), b)]; });
    return m;
}
template <class Format>
Matrix random_matrix(int rows, int columns, Random& random) {
    return random_matrix<Format>(rows, columns, rows, random, [](int r) { return r; });
}

/// Gate rows, then up rows, in tiles of eight and eight.
template <class Format>
Matrix random_interleaved(int width, int columns, Random& random) {
    return random_matrix<Format>(2 * width, columns, (width + 7) / 8 * 16, random, [=](int r) {
        const int feature = r / 16 * 8 + r % 8;
        return feature >= width ? -1 : r % 16 < 8 ? feature : width + feature;
    });
}

/// The matrices of all experts of a routed block, or the one of a dense block.
struct Experts {
    std::vector<Matrix> matrices;
    std::vector<unsigned char> tiles;

    template <class Make>
    Experts(int count, const Make& make) {
        for (int e = 0; e < count; ++e) {
            matrices.push_back(make());
            tiles.insert(tiles.end(), matrices.back().tiles.begin(), matrices.back().tiles.end());
            matrices.back().tiles.clear();
        }
    }
    unsigned long long bytes() const { return tiles.size() / matrices.size(); }
};

}  // namespace cuda_test
