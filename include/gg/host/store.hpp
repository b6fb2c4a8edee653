// How the host holds tensors: matrices as they lie in the file, decoded on the fly; vectors (norm gains,
// biases, sinks) as float32, converted when the model is loaded.
#pragma once

#include <cstddef>

#include "gg/core/dtype.hpp"

namespace gg::host {

/// Floats of a vector tensor; empty if the composition has no such tensor.
struct Vector {
    const float* data = nullptr;
    std::size_t size = 0;

    float operator[](int i) const { return data[i]; }
};

/// Rows of weights in the file's format.
struct Matrix {
    DType type = DType::f32;
    const std::byte* data = nullptr;
    int columns = 0;
    int rows = 0;
    std::size_t row_bytes = 0;
};

/// `count` matrices of the same shape, one behind the other.
struct Matrices {
    Matrix first;
    int count = 0;

    Matrix operator[](int i) const {
        Matrix m = first;
        m.data += static_cast<std::size_t>(i) * static_cast<std::size_t>(m.rows) * m.row_bytes;
        return m;
    }
};

/// The handles that a block's Weights are made of.
struct HostStore {
    using Vector = host::Vector;
    using Matrix = host::Matrix;
    using Matrices = host::Matrices;
};

}  // namespace gg::host
