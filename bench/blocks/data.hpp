// Random data on the device, and its way back to the host. Never zeros: a GPU's clock and its memory's power
// follow what is moved.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gg/core/dtype.hpp"
#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/repack_args.hpp"

namespace gg::bench {

/// Sizes of buffers from products of ints.
template <class... Ints>
constexpr std::size_t size(Ints... factors) {
    return (static_cast<std::size_t>(factors) * ... * std::size_t{1});
}

/// Sixteen-bit floats: sign and mantissa random, exponent fields low .. low + count - 1.
struct SixteenBits {
    int mantissa, low, count;
};
inline constexpr SixteenBits half_ones{10, 12, 4};     ///< FP16, magnitudes 1/8 to 2
inline constexpr SixteenBits bfloat_ones{7, 124, 4};   ///< BF16, likewise
inline constexpr SixteenBits bfloat_rests{7, 113, 3};  ///< BF16, what rounding such numbers leaves over

void fill_floats(float* data, std::size_t count, float low, float high, unsigned seed);
void fill_words(unsigned* data, std::size_t count, unsigned seed);
/// Integers below `bound`.
void fill_integers(int* data, std::size_t count, unsigned bound, unsigned seed);
void fill_sixteen(unsigned short* data, std::size_t count, SixteenBits bits, unsigned seed);
/// Rows as a file has them, any element type, values about 1/32.
void fill_rows(DType type, unsigned char* data, std::size_t bytes, unsigned seed);

template <class T>
std::vector<T> read(const T* data, std::size_t count) {
    std::vector<T> values(count);
    cuda::check(cudaDeviceSynchronize(), "running a block");
    cuda::check(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost),
                "reading an output");
    return values;
}

/// Device memory that begins as random numbers, as zeros, or as a copy.
template <class T>
cuda::DeviceBuffer<T> buffer(std::size_t count) {
    cuda::DeviceBuffer<T> memory(count, "the data of a block");
    cuda::check(cudaMemset(memory.data(), 0, memory.bytes()), "clearing memory");
    return memory;
}
template <class T>
cuda::DeviceBuffer<T> buffer(const std::vector<T>& values) {
    cuda::DeviceBuffer<T> memory(values.size(), "the data of a block");
    cuda::check(cudaMemcpy(memory.data(), values.data(), memory.bytes(), cudaMemcpyHostToDevice),
                "sending the data of a block");
    return memory;
}
inline cuda::DeviceBuffer<float> random_floats(std::size_t count, float low, float high, unsigned seed) {
    cuda::DeviceBuffer<float> memory(count, "the data of a block");
    fill_floats(memory.data(), count, low, high, seed);
    return memory;
}
inline cuda::DeviceBuffer<unsigned short> random_sixteen(std::size_t count, SixteenBits bits, unsigned seed) {
    cuda::DeviceBuffer<unsigned short> memory(count, "the data of a block");
    fill_sixteen(memory.data(), count, bits, seed);
    return memory;
}

/// Random matrices of a file's element type and the tiles that a GPU holds them as: `copies` times `matrices`
/// of them. Interleaved: gate rows (source 0) and up rows (source 1), as many of each.
class Matrices {
  public:
    struct Shape {
        DType type;
        int copies, matrices, rows, columns;
        bool interleaved = false;
    };
    Matrices(const Shape& shape, unsigned seed);

    const unsigned char* tiles(int copy) const { return tiles_.data() + size(copy) * copy_bytes_; }
    /// Bytes of one matrix's tiles; interleaved: of both sources.
    /// Units of rows (warpgroup_tile.cuh).
    const unsigned char* row_units(int copy) const { return units_.data() + size(copy) * copy_units_; }
    std::size_t matrix_bytes() const { return copy_bytes_ / size(shape_.matrices); }
    std::size_t copy_bytes() const { return copy_bytes_; }
    /// Bytes of one copy's rows in the file.
    std::size_t file_bytes() const { return source_bytes_ * (shape_.interleaved ? 2 : 1); }
    int copies() const { return shape_.copies; }
    int columns() const { return shape_.columns; }
    /// A row's values, decoded on the host from the file's bytes.
    std::vector<float> row(int copy, int matrix, int source, int r) const;
    /// Makes the tiles of a copy again.
    void repack(int copy, cudaStream_t stream) const;
    /// A tile as its bytes.
    std::vector<unsigned char> tile_bytes(int copy, std::size_t tile) const;
    DType tile_type() const { return tile_type_; }

  private:
    cuda::RepackArgs args(int copy) const;

    Shape shape_;
    DType tile_type_;
    std::size_t row_bytes_, source_bytes_, copy_bytes_ = 0;
    std::size_t copy_units_ = 0;
    cuda::DeviceBuffer<unsigned char> rows_, tiles_;
    cuda::DeviceBuffer<unsigned char> units_;
    cuda::DeviceBuffer<int> faults_;
};

/// A dot product in double, and the sum of its terms' magnitudes.
struct Dot {
    double value = 0, magnitude = 0;
};
template <class Weight, class Value>
Dot dot(const std::vector<Weight>& w, const Value* x) {
    Dot sum;
    for (std::size_t i = 0; i < w.size(); ++i) {
        const double term = static_cast<double>(w[i]) * static_cast<double>(x[i]);
        sum.value += term;
        sum.magnitude += std::fabs(term);
    }
    return sum;
}
/// What a tensor core's sums of so many columns may miss by: each term loses at most 2^-23 of the magnitudes.
inline double product_bound(const Dot& sum, int columns) {
    return (columns + 32) * 0x1p-23 * sum.magnitude + 1e-6;
}

/// Steps through `count` of `all` places, the first and the last among them.
inline int sample(int i, int count, int all) {
    return static_cast<int>(static_cast<long long>(all - 1) * i / (count > 1 ? count - 1 : 1));
}

}  // namespace gg::bench
