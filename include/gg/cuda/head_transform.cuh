// Applies the policies of an attention block, in the order in which they are composed, to one query or key
// head [head_dim] of FP32 in shared memory, by a warp. The rotary embedding turns its pairs side by side and
// rounds in a stated order, so that every kernel gives the same bits; any other policy, user code's too, is
// called for the whole head by one lane. A kernel may ask which turning that is, and do it in registers.
#pragma once

#include "gg/block/attention.hpp"
#include "gg/block/rope.hpp"
#include "gg/cuda/primitives.cuh"
#include "gg/cuda/store.hpp"

namespace gg::cuda {

namespace detail {

/// Turns one pair of a rotary embedding.
GG_DEVICE void rotate_pair(float& a, float& b, float cosine, float sine) {
    const float x1 = a, x2 = b;
    a = __fmaf_rn(x1, cosine, -__fmul_rn(x2, sine));
    b = __fmaf_rn(x2, cosine, __fmul_rn(x1, sine));
}

template <class Policy>
struct TransformByWarp {
    template <class Weights, class Dims>
    GG_DEVICE static void run(const Weights& weights, const Dims& dims, const HeadPlace& head, float* x,
                              int lane) {
        if (lane == 0) Policy::transform(weights, dims, head, x);
    }
};

template <class Pairs, class Frequencies>
struct TransformByWarp<RotaryEmbedding<Pairs, Frequencies>> {
    template <class Weights, class Dims>
    GG_DEVICE static void run(const Weights&, const Dims& dims, const HeadPlace& head, float* x, int lane) {
        const int half = dims.head_dim / 2;
#pragma unroll
        for (int begin = 0; begin < half; begin += warp_size) {
            const int i = begin + lane;
            if (i >= half) continue;
            rotate_pair(x[Pairs::first(i, half)], x[Pairs::second(i, half)], head.cosines[i], head.sines[i]);
        }
    }
};

template <class Block>
struct TransformHead;

template <class... Policies>
struct TransformHead<Attention<Policies...>> {
    template <class Weights, class Dims>
    GG_DEVICE static void run([[maybe_unused]] const Weights& weights, [[maybe_unused]] const Dims& dims,
                              [[maybe_unused]] const HeadPlace& head, [[maybe_unused]] float* x,
                              [[maybe_unused]] int lane) {
        ((TransformByWarp<Policies>::run(
              static_cast<const gg::detail::PolicyWeights<Policies, CudaStore>&>(weights), dims, head, x,
              lane),
          __syncwarp()),
         ...);
    }
};

/// What a policy does to a head, as far as its type tells.
enum class Turning {
    none,        ///< it is one of gg's that leave heads alone
    half_split,  ///< rotates pairs (i, i + half)
    adjacent,    ///< rotates pairs (2i, 2i + 1)
    unknown,
};

template <class Policy>
inline constexpr Turning turning_of = Turning::unknown;
template <>
inline constexpr Turning turning_of<Bias> = Turning::none;
template <>
inline constexpr Turning turning_of<FusedQkv> = Turning::none;
template <>
inline constexpr Turning turning_of<SlidingWindow> = Turning::none;
template <>
inline constexpr Turning turning_of<Sinks> = Turning::none;
template <class Frequencies>
inline constexpr Turning turning_of<RotaryEmbedding<HalfSplitPairs, Frequencies>> = Turning::half_split;
template <class Frequencies>
inline constexpr Turning turning_of<RotaryEmbedding<AdjacentPairs, Frequencies>> = Turning::adjacent;

/// What all policies of a block do together: an attention has one rotary embedding at most.
template <class Block>
inline constexpr Turning block_turning = Turning::unknown;
template <class... Policies>
inline constexpr Turning block_turning<Attention<Policies...>> =
    ((turning_of<Policies> == Turning::unknown) || ...)      ? Turning::unknown
    : ((turning_of<Policies> == Turning::half_split) || ...) ? Turning::half_split
    : ((turning_of<Policies> == Turning::adjacent) || ...)   ? Turning::adjacent
                                                             : Turning::none;

}  // namespace detail

/// Transforms the head `x` in shared memory, where head.cosines and head.sines lie as well. All lanes of a
/// warp call it, after their writes of x are visible to each other; the result is visible to all of them.
template <class Dims, class Block>
GG_DEVICE void transform_head(const typename Block::template Weights<CudaStore>& weights,
                              const HeadPlace& head, float* x, int lane) {
    detail::TransformHead<Block>::run(weights, Dims{}, head, x, lane);
}

}  // namespace gg::cuda
