#include "data.hpp"

#include "gg/cuda/launch.hpp"
#include "gg/cuda/repack.cuh"
#include "gg/cuda/weight_format.hpp"
#include "gg/format/validate.hpp"

namespace gg::bench {

namespace {

/// splitmix64 of a place.
__device__ unsigned random_word(std::size_t i, unsigned seed) {
    unsigned long long z = (i + 1) * 0x9E3779B97F4A7C15ull + seed * 0xD1B54A32D192ED03ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return static_cast<unsigned>((z ^ (z >> 31)) >> 32);
}

template <class T, class F>
__global__ void fill_kernel(T* data, std::size_t count, F f) {
    const std::size_t step = static_cast<std::size_t>(gridDim.x) * blockDim.x;
    for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
         i += step)
        f(data, i);
}
template <class T, class F>
void fill(T* data, std::size_t count, F f) {
    const std::size_t blocks = std::min<std::size_t>((count + 255) / 256, 8192);
    if (blocks > 0) fill_kernel<<<static_cast<unsigned>(blocks), 256>>>(data, count, f);
    cuda::check(cudaGetLastError(), "filling memory with random numbers");
}

struct Floats {
    float low, high;
    unsigned seed;
    __device__ void operator()(float* data, std::size_t i) const {
        data[i] = low + (high - low) * (static_cast<float>(random_word(i, seed)) * 0x1p-32f);
    }
};
struct Words {
    unsigned bound;  ///< 0: any
    unsigned seed;
    __device__ void operator()(unsigned* data, std::size_t i) const {
        const unsigned word = random_word(i, seed);
        data[i] = bound > 0 ? word % bound : word;
    }
};
__device__ unsigned sixteen(SixteenBits b, unsigned word) {
    const unsigned exponent = static_cast<unsigned>(b.low) + (word >> 20) % static_cast<unsigned>(b.count);
    return word >> 31 << 15 | exponent << b.mantissa | (word & ((1u << b.mantissa) - 1));
}
struct Sixteen {
    SixteenBits bits;
    unsigned seed;
    __device__ void operator()(unsigned short* data, std::size_t i) const {
        data[i] = static_cast<unsigned short>(sixteen(bits, random_word(i, seed)));
    }
};

/// A block of an element type: random bytes, but scales and exponents such that values are about 1/32.
struct Rows {
    DType type;
    int bytes;
    format::HalfScales scales;
    unsigned seed;

    __device__ void operator()(unsigned char* data, std::size_t i) const {
        unsigned char* block = data + i * static_cast<std::size_t>(bytes);
        const std::size_t first = i * static_cast<std::size_t>((bytes + 3) / 4 + 1);
        unsigned word = 0;
        for (int b = 0; b < bytes; ++b) {
            if (b % 4 == 0) word = random_word(first + static_cast<std::size_t>(b / 4), seed);
            block[b] = static_cast<unsigned char>(word >> 8 * (b % 4));
        }
        word = random_word(first + static_cast<std::size_t>((bytes + 3) / 4), seed);
        if (type == DType::f32)
            put(block + 2, sixteen({7, 120, 3}, word));
        else if (type == DType::f16)
            put(block, sixteen({10, 8, 3}, word));
        else if (type == DType::bf16)
            put(block, sixteen({7, 120, 3}, word));
        else if (type == DType::mxfp4)
            block[0] = static_cast<unsigned char>(119 + word % 2);
        for (int s = 0; s < scales.count; ++s)
            put(block + scales.offset + 2 * s, 3u << 10 | (word >> 10 * s & 1023u));
    }
    __device__ static void put(unsigned char* at, unsigned bits) {
        at[0] = static_cast<unsigned char>(bits);
        at[1] = static_cast<unsigned char>(bits >> 8);
    }
};

}  // namespace

void fill_floats(float* data, std::size_t count, float low, float high, unsigned seed) {
    fill(data, count, Floats{low, high, seed});
}
void fill_words(unsigned* data, std::size_t count, unsigned seed) {
    fill(data, count, Words{0, seed});
}
void fill_integers(int* data, std::size_t count, unsigned bound, unsigned seed) {
    fill(reinterpret_cast<unsigned*>(data), count, Words{bound, seed});
}
void fill_sixteen(unsigned short* data, std::size_t count, SixteenBits bits, unsigned seed) {
    fill(data, count, Sixteen{bits, seed});
}
void fill_rows(DType type, unsigned char* data, std::size_t bytes, unsigned seed) {
    const auto scales = format::visit(type, [](auto f) { return format::half_scales<decltype(f)>(); });
    const int block = static_cast<int>(info(type).bytes);
    fill(data, bytes / static_cast<std::size_t>(block), Rows{type, block, scales, seed});
}

Matrices::Matrices(const Shape& shape, unsigned seed)
    : shape_(shape),
      tile_type_(cuda::device_type(shape.type)),
      row_bytes_(size(shape.columns) / info(shape.type).elements * info(shape.type).bytes),
      source_bytes_(size(shape.matrices, shape.rows) * row_bytes_),
      faults_(buffer<int>(2)) {
    const cuda::RepackArgs geometry = [&] {
        cuda::RepackArgs a{};
        a.matrices = shape.matrices;
        a.rows = shape.rows;
        a.columns = shape.columns;
        a.interleaved = shape.interleaved;
        return a;
    }();
    copy_bytes_ = cuda::repack_tiles(geometry) * cuda::TileGeometry::tile_bytes(tile_type_);
    rows_ = cuda::DeviceBuffer<unsigned char>(size(shape.copies) * file_bytes(), "random rows");
    tiles_ = cuda::DeviceBuffer<unsigned char>(size(shape.copies) * copy_bytes_, "random tiles");
    copy_units_ = size(shape.matrices, cuda::repack_row_tiles(geometry)) * cuda::tile_rows;
    units_ = buffer<unsigned char>(size(shape.copies) * copy_units_);
    cuda::check(cudaMemset(units_.data(), 0, units_.bytes()), "clearing units of rows");
    fill_rows(shape.type, rows_.data(), rows_.bytes(), seed);
    for (int copy = 0; copy < shape.copies; ++copy) repack(copy, nullptr);
    const std::vector<int> faults = read(faults_.data(), 2);
    if (faults[0] + faults[1] > 0)
        throw Error(ErrorCode::internal, {.field = "random rows of " + std::string(info(shape.type).name),
                                          .expected = "numbers that tiles can hold",
                                          .found = std::to_string(faults[0] + faults[1]) + " others"});
}

cuda::RepackArgs Matrices::args(int copy) const {
    const unsigned char* rows = rows_.data() + size(copy) * file_bytes();
    cuda::RepackArgs a{};
    const int type = static_cast<int>(shape_.type);
    a.sources[0] = {rows, row_bytes_, type};
    a.sources[1] = {rows + source_bytes_, row_bytes_, type};
    if (!shape_.interleaved) a.sources[1] = a.sources[0];
    a.tiles = tiles_.data() + size(copy) * copy_bytes_;
    a.faults = faults_.data();
    a.row_units = units_.data() + size(copy) * copy_units_;
    a.matrices = shape_.matrices;
    a.rows = shape_.rows;
    a.columns = shape_.columns;
    a.interleaved = shape_.interleaved;
    return a;
}

void Matrices::repack(int copy, cudaStream_t stream) const {
    const cuda::RepackArgs a = args(copy);
    format::visit(tile_type_, [&](auto target) {
        using Target = decltype(target);
        constexpr DType type = format::dtype_of<Target>;
        if constexpr (cuda::device_type(type) == type)
            cuda::launch<cuda::Repack<Target>>(dim3(cuda::repack_blocks(a)), a, stream);
    });
}

std::vector<float> Matrices::row(int copy, int matrix, int source, int r) const {
    const unsigned char* at = rows_.data() + size(copy) * file_bytes() + size(source) * source_bytes_ +
                              size(matrix * shape_.rows + r) * row_bytes_;
    const std::vector<unsigned char> bytes = read(at, row_bytes_);
    std::vector<float> values(size(shape_.columns));
    format::decode_row(shape_.type, reinterpret_cast<const std::byte*>(bytes.data()), values.size(),
                       values.data());
    return values;
}

std::vector<unsigned char> Matrices::tile_bytes(int copy, std::size_t tile) const {
    const std::size_t bytes = cuda::TileGeometry::tile_bytes(tile_type_);
    return read(tiles(copy) + tile * bytes, bytes);
}

}  // namespace gg::bench
