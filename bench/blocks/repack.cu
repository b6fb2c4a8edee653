// From a file's rows to tiles, each element type: bytes read and written. A few elements of the tiles are
// read back bit by bit and compared with the host's decoding.
#include "cuda/tiles.hpp"
#include "data.hpp"
#include "gg/format/visit.hpp"
#include "timing.hpp"

namespace gg::bench {

namespace {

double tile_value(DType type, const std::vector<unsigned char>& tile, int row, int column) {
    switch (type) {
        case DType::mxfp4:
            return cuda_test::tile_value<format::MXFP4>(tile.data(), row, column);
        case DType::q8_0:
            return cuda_test::tile_value<format::Q8_0>(tile.data(), row, column);
        case DType::bf16:
            return cuda_test::tile_value<format::BF16>(tile.data(), row, column);
        default:
            return cuda_test::tile_value<format::F16>(tile.data(), row, column);
    }
}

Result repack(const Bench& bench, DType type) {
    constexpr int matrices = 8, rows = 5760, columns = 3072;  // a multiple of 256, for the K-quants
    const Matrices m({type, 1, matrices, rows, columns}, 80);
    Check check("the host's decoding");
    for (int i = 0; i < 64; ++i) {
        const int matrix = i % matrices, row = sample(i, 64, rows), column = sample(i * 29 % 64, 64, columns);
        const std::size_t tile =
            size(matrix * (rows / 16) + row / 16) * size(columns / 64) + size(column / 64);
        const double expected = static_cast<double>(m.row(0, matrix, 0, row)[size(column)]);
        const bool rounded = m.tile_type() == DType::f16 && type != DType::f16;
        check.see(tile_value(m.tile_type(), m.tile_bytes(0, tile), row % 16, column % 64), expected,
                  rounded ? std::fabs(expected) * 0x1p-11 + 0x1p-25 : 0.0,
                  "matrix " + std::to_string(matrix) + ", row " + std::to_string(row) + ", column " +
                      std::to_string(column));
    }
    return {time_calls(bench, 1, [&](cudaStream_t stream, int) { m.repack(0, stream); }),
            static_cast<double>(m.file_bytes() + m.copy_bytes()),
            0,
            check.text(),
            {}};
}

}  // namespace

void bench_repack(Bench& bench) {
    for (const DTypeInfo& type : dtypes)
        bench.measure("repack: " + std::string(type.name), "8 x 5760 x 3072",
                      [&] { return repack(bench, type.type); });
}

}  // namespace gg::bench
