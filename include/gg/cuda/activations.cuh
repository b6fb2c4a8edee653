// Where a stage's product takes its activations from, as matvec.cuh wants them:
//   SharedActivations   what the stage itself normed, in shared memory
//   CopiedActivations   one row that an earlier kernel of the chain left, copied to shared memory
//   ChainActivations    rows that an earlier kernel left, tile by tile out of the second-level cache
// Operands are 16-bit floats (operand.cuh); rows in shared memory begin in different banks.
#pragma once

#include "gg/cuda/operand.cuh"
#include "gg/cuda/stage_shapes.hpp"

namespace gg::cuda {

/// [planes][rows][stride_]; a lane reads row min(g, used_rows - 1).
template <class Operand, int rows, int stride_>
struct RowActivations {
    static constexpr int stride = stride_, plane = rows * stride;

    const unsigned short* lane_base;

    GG_DEVICE RowActivations(const unsigned short* base, int lane, int used_rows) {
        const int g = lane / 4, row = g < used_rows ? g : used_rows - 1;
        lane_base = base + row * stride + 8 * (lane % 4);
    }
    /// Where a tile's are of one plane.
    template <class Place>
    GG_DEVICE const uint4* at(const Place& place, int block, int p) const {
        return reinterpret_cast<const uint4*>(lane_base + p * plane + place.k * 64 + 32 * block);
    }
};

/// Activations in shared memory, 16-byte reads of eight rows free of bank conflicts.
template <class Operand, int rows, int width>
struct SharedActivations : RowActivations<Operand, rows, shared_stride(rows, width)> {
    static constexpr int bytes = shared_activation_bytes(Operand::planes, rows, width);

    using RowActivations<Operand, rows, shared_stride(rows, width)>::RowActivations;

    template <class Place>
    GG_DEVICE void load(const Place& place, int block, uint4 (&x)[Operand::planes]) const {
#pragma unroll
        for (int p = 0; p < Operand::planes; ++p) x[p] = *this->at(place, block, p);
    }
};

/// Activations of one row that an earlier kernel of the chain wrote,
/// [planes][matrices][operand_stride(width)], whose columns are counted on over the matrices, copied to
/// shared memory: there every tile's are at hand, which from device memory take longer to come than a tile
/// takes to multiply.
template <class Operand, int width, int matrices = 1>
struct CopiedActivations {
    static constexpr int stride = operand_stride(width), plane = matrices * stride;
    static constexpr int bytes = copied_activation_bytes(Operand::planes, 1, width, matrices);

    const unsigned short* lane_base;

    /// All threads of the block call it.
    GG_DEVICE CopiedActivations(const unsigned short* from, unsigned char* shared, int lane, int threads) {
        auto* to = reinterpret_cast<uint4*>(shared);
        for (int i = static_cast<int>(threadIdx.x); i < bytes / 16; i += threads)
            to[i] = load_cg(reinterpret_cast<const uint4*>(from) + i);
        __syncthreads();
        lane_base = reinterpret_cast<const unsigned short*>(shared) + 8 * (lane % 4);
    }
    template <class Place>
    GG_DEVICE void load(const Place& place, int block, uint4 (&x)[Operand::planes]) const {
        const unsigned short* from = lane_base + place.k * 64 + 32 * block;
#pragma unroll
        for (int p = 0; p < Operand::planes; ++p) x[p] = *reinterpret_cast<const uint4*>(from + p * plane);
    }
};

/// Activations in device memory that an earlier kernel of the chain wrote.
template <class Operand, int rows, int width>
struct ChainActivations : RowActivations<Operand, rows, operand_stride(width)> {
    using RowActivations<Operand, rows, operand_stride(width)>::RowActivations;

    template <class Place>
    GG_DEVICE void load(const Place& place, int block, uint4 (&x)[Operand::planes]) const {
#pragma unroll
        for (int p = 0; p < Operand::planes; ++p) x[p] = load_cg(this->at(place, block, p));
    }
};

}  // namespace gg::cuda
