// What becomes of the sums of a product of many rows (product.cuh). An epilogue has
//   row_tiles          tiles of the matrix
//   covered_row_tiles  tiles that the grid covers: more, where padding must be written
//   bias(args, expert, row_tile, lane)      a lane's biases of a row tile
//   store(args, bias, row_tile, lane, token, end, sums)
// where sums are a tensor-core product's: lane 4g + t has rows g (sums 0, 1) and g + 8 (2, 3) of the tile, at
// rows token + 2t and token + 2t + 1 of the product, which exist if they are below `end`. Each element is
// written by exactly one thread.
#pragma once

#include "gg/cuda/operand.cuh"
#include "gg/cuda/prefill_args.hpp"

namespace gg::cuda {

namespace detail {

/// The bias of one row, 0 where there is none.
GG_DEVICE float bias_of(const float* bias, int expert, int width, int row) {
    return bias && row < width ? bias[static_cast<Size>(expert) * width + row] : 0.0f;
}

/// A lane's biases of rows g and g + 8 of a tile, or of gate and up of feature g.
struct LaneBias {
    float low, high;
};

/// Epilogues that leave FP32 sums [rows][width].
template <int width_>
struct FloatEpilogue {
    static constexpr int width = width_;
    static constexpr int row_tiles = (width + 15) / 16;
    static constexpr int covered_row_tiles = row_tiles;

    GG_DEVICE static LaneBias bias(const ProductArgs& args, int expert, int row_tile, int lane) {
        const int row = 16 * row_tile + lane / 4;
        return {bias_of(args.bias, expert, width, row), bias_of(args.bias, expert, width, row + 8)};
    }

  protected:
    /// Calls f(element of y, value) for the lane's elements that exist.
    template <class F>
    GG_DEVICE static void for_each(const ProductArgs& args, const LaneBias& bias, int row_tile, int lane,
                                   int token, int end, const float (&sums)[4], F f) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = 16 * row_tile + lane / 4 + i / 2 * 8, at = token + lane % 4 * 2 + i % 2;
            if (row < width && at < end)
                f(args.y + static_cast<Size>(at) * width + row, sums[i] + (i < 2 ? bias.low : bias.high));
        }
    }
};

}  // namespace detail

/// y = product + bias, in FP32.
template <int width>
struct StoreProduct : detail::FloatEpilogue<width> {
    GG_DEVICE static void store(const ProductArgs& args, const detail::LaneBias& bias, int row_tile, int lane,
                                int token, int end, const float (&sums)[4]) {
        StoreProduct::for_each(args, bias, row_tile, lane, token, end, sums,
                               [](float* y, float value) { *y = value; });
    }
};

/// y += product + bias, in FP32: the residual stream.
template <int width>
struct AddProduct : detail::FloatEpilogue<width> {
    GG_DEVICE static void store(const ProductArgs& args, const detail::LaneBias& bias, int row_tile, int lane,
                                int token, int end, const float (&sums)[4]) {
        AddProduct::for_each(args, bias, row_tile, lane, token, end, sums,
                             [](float* y, float value) { *y = load_cg(y) + value; });
    }
};

/// The activation of product + bias as the operand of the next product; `width` is the feed-forward width.
/// Gated: rows 0 to 7 of a tile are the gate, rows 8 to 15 the up rows of the same 8 features.
template <class Activation, int width_, class NextOperand>
struct ActivateProduct {
    static constexpr int width = width_;
    static constexpr int features = Activation::gated ? 8 : 16;  ///< of a row tile
    static constexpr int stride = operand_stride(width);
    static constexpr int row_tiles = (width + features - 1) / features;
    static constexpr int covered_row_tiles = stride / features;

    GG_DEVICE static detail::LaneBias bias(const ProductArgs& args, int expert, int row_tile, int lane) {
        const int feature = features * row_tile + lane / 4;
        if constexpr (Activation::gated)
            return {detail::bias_of(args.bias, expert, width, feature),
                    detail::bias_of(args.up_bias, expert, width, feature)};
        else
            return {detail::bias_of(args.bias, expert, width, feature),
                    detail::bias_of(args.bias, expert, width, feature + 8)};
    }

    GG_DEVICE static void store(const ProductArgs& args, const detail::LaneBias& bias, int row_tile, int lane,
                                int token, int end, const float (&sums)[4]) {
        const int feature = features * row_tile + lane / 4;
        const int at = token + lane % 4 * 2;
        if constexpr (Activation::gated) {
            store_pair(args, feature, at, end, Activation::apply(sums[0] + bias.low, sums[2] + bias.high),
                       Activation::apply(sums[1] + bias.low, sums[3] + bias.high));
        } else {
            store_pair(args, feature, at, end, Activation::apply(sums[0] + bias.low),
                       Activation::apply(sums[1] + bias.low));
            store_pair(args, feature + 8, at, end, Activation::apply(sums[2] + bias.high),
                       Activation::apply(sums[3] + bias.high));
        }
    }

  private:
    /// Stores a lane's feature of rows `at` and `at + 1`. Lanes of an even feature and the next one exchange,
    /// so that each stores both features of one row.
    GG_DEVICE static void store_pair(const ProductArgs& args, int feature, int at, int end, float first,
                                     float second) {
        first = feature < width ? first : 0.0f;
        second = feature < width ? second : 0.0f;
        const bool odd = feature % 2 != 0;
        const float other = __shfl_xor_sync(whole_warp, odd ? first : second, 4);
        const int row = at + (odd ? 1 : 0);
        if (row < end)
            store_operand<NextOperand>(args.operand, args.operand_plane,
                                       static_cast<Size>(row) * stride + (feature & ~1), odd ? other : first,
                                       odd ? second : other, args.overflows);
    }
};

}  // namespace gg::cuda
