// A named, typed view of tensor bytes that somebody else owns. Shapes are in GGUF order: shape[0] is the
// length of a row, the contiguous dimension; a matrix product with it reads rows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "gg/core/dtype.hpp"

namespace gg {

/// A tensor's bytes and what they mean. `data` is not aligned beyond the file's alignment (often 32 bytes),
/// and rows of block types have no alignment at all.
struct TensorView {
    std::string name;
    DType type = DType::f32;
    int dimensions = 0;                                 ///< 1 to 4
    std::array<std::uint64_t, 4> shape = {1, 1, 1, 1};  ///< unused dimensions are 1
    const std::byte* data = nullptr;

    std::uint64_t row_length() const { return shape[0]; }
    std::uint64_t rows() const { return shape[1] * shape[2] * shape[3]; }
    std::uint64_t elements() const { return shape[0] * rows(); }
    /// Bytes of one row.
    std::uint64_t row_bytes() const { return shape[0] / info(type).elements * info(type).bytes; }
    std::uint64_t bytes() const { return row_bytes() * rows(); }
};

/// "[2880, 4096]", as in GGUF order.
inline std::string shape_text(const TensorView& tensor) {
    std::string text = "[";
    for (int i = 0; i < tensor.dimensions; ++i)
        text += (i ? ", " : "") + std::to_string(tensor.shape[static_cast<std::size_t>(i)]);
    return text + "]";
}

}  // namespace gg
