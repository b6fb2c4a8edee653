// The sampler's stages as kernels: gg/cuda/sampler_stages.hpp says what they compute. In a chain, in this
// order:
//
//   SamplerMaximum  grid sampler_slices(vocabulary), rows
//   SamplerCollect  the same
//   SamplerChoose   the same
//   SamplerAccept   grid 1: tokens of a prompt, or one that was drawn, into the history of one sequence
//
// The id equals the host's only if products are not fused into sums (gg/text/logit.hpp): compile the unit
// that instantiates these with -fmad=false. The settings of a state, blocked ids and a row's pointers are
// read before the wait, so only copies may write them, not a kernel of the same chain.
#pragma once

#include "gg/core/device.hpp"
#include "gg/cuda/primitives.cuh"
#include "gg/cuda/sampler_args.hpp"
#include "gg/cuda/sampler_choose.hpp"
#include "gg/cuda/sampler_selection.hpp"
#include "gg/cuda/sampler_slice.hpp"
#include "gg/cuda/sampler_stages.hpp"

namespace gg::cuda {

namespace detail {

GG_DEVICE SamplerKey shuffle_xor(SamplerKey value, int lanes) {
    return __shfl_xor_sync(whole_warp, value, lanes);
}
GG_DEVICE KeyRange shuffle_xor(KeyRange value, int lanes) {
    return {shuffle_xor(value.first, lanes), shuffle_xor(value.last, lanes)};
}
GG_DEVICE Tally shuffle_up(Tally value, int lanes) {
    return {__shfl_up_sync(whole_warp, value.mass, static_cast<unsigned>(lanes)),
            __shfl_up_sync(whole_warp, value.count, static_cast<unsigned>(lanes))};
}

/// The threads of a block on the device: see sampler_selection.hpp.
template <int thread_count>
class DeviceBlock {
  public:
    static constexpr int threads = thread_count;
    static constexpr int warps = threads / warp_size;
    static_assert(threads % warp_size == 0 && warps <= warp_size);

    /// One value a warp.
    struct Scratch {
        KeyRange of_warp[warp_size];
    };

    __device__ explicit DeviceBlock(Scratch& scratch) : scratch_(scratch) {}

    template <class F>
    GG_DEVICE void phase(F f) {
        f(thread());
        __syncthreads();
    }

    template <class T, class F, class Combine>
    GG_DEVICE T reduce(F f, Combine combine) {
        T* of_warp = reinterpret_cast<T*>(scratch_.of_warp);
        T value = f(thread());
        __syncwarp();
#pragma unroll
        for (int lanes = warp_size / 2; lanes > 0; lanes /= 2)
            value = combine(value, shuffle_xor(value, lanes));
        if (lane() == 0) of_warp[thread() / warp_size] = value;
        __syncthreads();
        // Each warp combines all. Where there are fewer warps than lanes, warps is a power of two.
        static_assert((warps & (warps - 1)) == 0);
        value = of_warp[lane() % warps];
#pragma unroll
        for (int lanes = warps / 2; lanes > 0; lanes /= 2) value = combine(value, shuffle_xor(value, lanes));
        __syncthreads();
        return value;
    }

    template <class F>
    GG_DEVICE SamplerKey largest(F f) {
        SamplerKey* of_warp = reinterpret_cast<SamplerKey*>(scratch_.of_warp);
        const SamplerKey value = f(thread());
        __syncwarp();
        const SamplerKey mine = largest_of_warp(value);
        if (lane() == 0) of_warp[thread() / warp_size] = mine;
        __syncthreads();
        const SamplerKey all = largest_of_warp(of_warp[lane() % warps]);
        __syncthreads();
        return all;
    }

    GG_DEVICE bool last(unsigned* done, int count) {
        unsigned* before = reinterpret_cast<unsigned*>(scratch_.of_warp);
        __syncthreads();
        if (thread() == 0) {
            __threadfence();
            *before = atomicAdd(done, 1u);
            __threadfence();
        }
        __syncthreads();
        const bool is_last = *before == static_cast<unsigned>(count) - 1;
        __syncthreads();
        return is_last;
    }

    template <class Value, class Use>
    GG_DEVICE void scan(Value value, Use use) {
        Tally* of_warp = reinterpret_cast<Tally*>(scratch_.of_warp);
        const Tally own = value(thread());
        __syncwarp();
        const Tally through = scan_warp(own);
        if (lane() == warp_size - 1) of_warp[thread() / warp_size] = through;
        __syncthreads();
        const Tally sums = scan_warp(lane() < warps ? of_warp[lane()] : Tally{0, 0});
        const int warp = thread() / warp_size, last = warp == 0 ? 0 : warp - 1;
        Tally before = {__shfl_sync(whole_warp, sums.mass, last), __shfl_sync(whole_warp, sums.count, last)};
        if (warp == 0) before = {0, 0};
        use(thread(), Tally{before.mass + through.mass - own.mass, before.count + through.count - own.count});
        __syncthreads();
    }

    template <class T>
    GG_DEVICE T load(const T* p) {
        return load_cg(p);
    }
    template <class T>
    GG_DEVICE T add(T* p, T n) {
        return atomicAdd(p, n);
    }
    GG_DEVICE void set_bits(unsigned* p, unsigned bits) {
        atomicOr(p, bits);
    }

    /// One addition for a warp whose threads all have the same cell: equal logits are not rare.
    GG_DEVICE void tally(Cells& cells, bool active, int cell, unsigned long long mass) {
        const unsigned lanes = __ballot_sync(whole_warp, active);
        if (lanes == 0) return;
        const int leader = __ffs(static_cast<int>(lanes)) - 1;
        const int common = __shfl_sync(whole_warp, cell, leader);
        if (__all_sync(whole_warp, !active || cell == common)) {
            unsigned long long sum = active ? mass : 0;
#pragma unroll
            for (int distance = warp_size / 2; distance > 0; distance /= 2) sum += shuffle_xor(sum, distance);
            if (lane() == leader) cells.add(*this, cell, {sum, static_cast<unsigned>(__popc(lanes))});
        } else if (active) {
            cells.add(*this, cell, {mass, 1});
        }
        __syncwarp();
    }

  private:
    GG_DEVICE static int thread() {
        return static_cast<int>(threadIdx.x);
    }
    GG_DEVICE static int lane() {
        return static_cast<int>(threadIdx.x) % warp_size;
    }
    /// By halves, for which there is an instruction.
    GG_DEVICE static SamplerKey largest_of_warp(SamplerKey key) {
        const unsigned high = static_cast<unsigned>(key >> 32);
        const unsigned first = __reduce_max_sync(whole_warp, high);
        const unsigned low = high == first ? static_cast<unsigned>(key) : 0;
        return static_cast<SamplerKey>(first) << 32 | __reduce_max_sync(whole_warp, low);
    }
    GG_DEVICE static Tally scan_warp(Tally sum) {
#pragma unroll
        for (int lanes = 1; lanes < warp_size; lanes *= 2) {
            const Tally below = shuffle_up(sum, lanes);
            if (lane() >= lanes) sum = sum + below;
        }
        return sum;
    }

    Scratch& scratch_;
};

}  // namespace detail

/// Penalty, blocked ids, and the first id of each slice.
struct SamplerMaximum {
    using Args = SamplerArgs;
    static constexpr int threads = 512, shared_bytes = 0, residency = 2;

    __device__ static void run(const Args& args) {
        using Block = detail::DeviceBlock<threads>;
        __shared__ MaximumShared shared;
        __shared__ Block::Scratch scratch;
        launch_next();
        const int row = static_cast<int>(blockIdx.y), slice = static_cast<int>(blockIdx.x);
        const SamplerState* state = args.rows[row].sampler;
        const float* logits = args.rows[row].logits;
        const SamplerSettings settings = state->settings;
        const SamplerTask task = sampler_task(args, settings, row, slice);
        const unsigned blocked =
            blocked_ids<Block>(settings.blocked, task.slice, static_cast<int>(threadIdx.x));
        wait_for_previous();
        Block block(scratch);
        find_maximum(block, shared, task, settings, state, logits, [=](int) { return blocked; });
    }
};

/// What the options need of each slice.
struct SamplerCollect {
    using Args = SamplerArgs;
    static constexpr int threads = 512, shared_bytes = 0, residency = 2;

    __device__ static void run(const Args& args) {
        using Block = detail::DeviceBlock<threads>;
        __shared__ CollectShared shared;
        __shared__ Block::Scratch scratch;
        launch_next();
        const int row = static_cast<int>(blockIdx.y);
        const SamplerState* state = args.rows[row].sampler;
        const SamplerSettings settings = state->settings;
        const SamplerTask task = sampler_task(args, settings, row, static_cast<int>(blockIdx.x));
        wait_for_previous();
        Block block(scratch);
        collect(block, shared, task, settings, state);
    }
};

/// The id.
struct SamplerChoose {
    using Args = SamplerArgs;
    static constexpr int threads = 512, shared_bytes = 0, residency = 2;

    __device__ static void run(const Args& args) {
        using Block = detail::DeviceBlock<threads>;
        __shared__ ChooseShared shared;
        __shared__ SamplerSettings settings;  // shared for lack of registers
        __shared__ SamplerTask task;
        __shared__ Block::Scratch scratch;
        launch_next();
        // Most blocks are idle for most options: the others, of slice 0, begin first.
        const unsigned number = blockIdx.x + gridDim.x * blockIdx.y;
        const int row = static_cast<int>(number % gridDim.y);
        SamplerState* state = args.rows[row].sampler;
        if (threadIdx.x == 0) {
            settings = state->settings;
            task = sampler_task(args, settings, row, static_cast<int>(number / gridDim.y));
        }
        __syncthreads();
        wait_for_previous();
        Block block(scratch);
        choose(block, shared, task, args, settings, state, args.rows[row]);
    }
};

/// Tokens into a history.
struct SamplerAccept {
    using Args = SamplerAcceptArgs;
    static constexpr int threads = 256, shared_bytes = 0;

    __device__ static void run(const Args& args) {
        __shared__ detail::DeviceBlock<threads>::Scratch scratch;
        launch_next();
        const SamplerSettings settings = args.state->settings;
        wait_for_previous();
        detail::DeviceBlock<threads> block(scratch);
        accept_tokens(block, args.state, settings, args.tokens, args.count);
    }
};

}  // namespace gg::cuda
