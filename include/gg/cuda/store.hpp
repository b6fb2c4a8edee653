// How a GPU holds tensors: vectors (norm gains, biases, sinks) as float32; matrices as tiles (tile.cuh),
// several tensors of the file stacked to one where one kernel multiplies them together, so a block's own
// matrix handles are empty here and its tiles lie in a struct beside it.
#pragma once

#include "gg/core/device.hpp"

namespace gg::cuda {

/// Floats of a vector tensor in device memory; null if the composition has no such tensor.
struct Vector {
    const float* data = nullptr;

    GG_HD GG_INLINE float operator[](int i) const { return data[i]; }
};

/// The handles that a block's Weights are made of.
struct CudaStore {
    struct Matrix {};
    struct Matrices {};
    using Vector = cuda::Vector;
};

}  // namespace gg::cuda
