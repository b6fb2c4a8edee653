// Sorts (row, rank) pairs by expert, stably: pair p = row * used + rank. A counting sort in which block e
// looks at all pairs: those of smaller experts give offsets[e], its own follow in the order of the pairs. No
// block waits for another. Pairs that name no expert are left out.
//
// Bytes moved: the ids twice a block (128 KiB for 4096 rows of 8, from the second-level cache), two integers
// a pair out.
#pragma once

#include "gg/cuda/prefill_args.hpp"
#include "gg/cuda/prefill_plan.hpp"
#include "gg/cuda/primitives.cuh"

namespace gg::cuda {

/// Launched as expert_sort_launch().
struct ExpertSort {
    using Args = ExpertSortArgs;

    static constexpr int threads = sort_threads;
    static constexpr int warps = threads / 32;
    static constexpr int shared_bytes = 2 * warps * static_cast<int>(sizeof(int));

    __device__ static void run(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        int* equal_of_warp = reinterpret_cast<int*>(shared);
        int* less_of_warp = equal_of_warp + warps;
        launch_next();
        wait_for_previous();
        const int expert = blockIdx.x, lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
        const int pairs = args.rows * args.used;
        // Each warp has a run of pairs, whole groups of 32.
        const int run = (pairs + threads - 1) / threads * warp_size;
        const int begin = warp * run < pairs ? warp * run : pairs;
        const int end = begin + run < pairs ? begin + run : pairs;
        int equal = 0, less = 0;
        for_each_group(args, begin, end, lane, [&](int, int id) {
            equal += __popc(__ballot_sync(whole_warp, id == expert));
            less += __popc(__ballot_sync(whole_warp, id >= 0 && id < expert));
        });
        if (lane == 0) {
            equal_of_warp[warp] = equal;
            less_of_warp[warp] = less;
        }
        __syncthreads();
        int offset = 0, before = 0, all = 0;
        for (int w = 0; w < warps; ++w) {
            offset += less_of_warp[w];
            before += w < warp ? equal_of_warp[w] : 0;
            all += equal_of_warp[w];
        }
        if (threadIdx.x == 0) {
            args.offsets[expert] = offset;
            if (expert + 1 == static_cast<int>(gridDim.x)) args.offsets[expert + 1] = offset + all;
        }
        int next = offset + before;
        for_each_group(args, begin, end, lane, [&](int pair, int id) {
            const unsigned group = __ballot_sync(whole_warp, id == expert);
            if (id == expert) {
                const int position = next + __popc(group & ((1u << lane) - 1));
                args.x_rows[position] = pair / args.used;
                args.place[pair] = position;
            }
            next += __popc(group);
        });
    }

  private:
    /// Calls f(pair, expert) for a warp's pairs, 32 at a time in their order; -1 stands for none. Eight
    /// groups are asked for at once.
    template <class F>
    GG_DEVICE static void for_each_group(const Args& args, int begin, int end, int lane, F f) {
        constexpr int groups = 8;
        for (int first = begin + lane; first - lane < end; first += groups * warp_size) {
            int id[groups];
#pragma unroll
            for (int i = 0; i < groups; ++i)
                id[i] = first + i * warp_size < end ? load_cg(args.expert + first + i * warp_size) : -1;
#pragma unroll
            for (int i = 0; i < groups; ++i) f(first + i * warp_size, id[i]);
        }
    }
};

}  // namespace gg::cuda
