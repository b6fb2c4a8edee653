// Random weights made where they are needed: fills device memory with the bytes of a tensor that
// model/synthetic_blocks.hpp defines, the very ones that the host writes. A thread makes one block, or the
// floats of one counter, and goes on at a stride of the grid. Bytes moved: those written, once.
#pragma once

#include "gg/cuda/synthesize_args.hpp"

namespace gg::cuda {

struct Synthesize {
    using Args = SynthesizeArgs;
    static constexpr int threads = synthesize_threads;
    static constexpr int shared_bytes = 0;

    __device__ static void run(const Args& args) {
        __shared__ unsigned values[synthetic_values];
        const bool is_block = args.recipe.type == 8 || args.recipe.type == 39;
        if (!is_block) {
            for (int i = static_cast<int>(threadIdx.x); i < synthetic_values; i += threads)
                values[i] = synthetic_value(args.recipe, i);
            __syncthreads();
        }
        const unsigned long long units = synthesize_units(args);
        const unsigned long long stride = static_cast<unsigned long long>(gridDim.x) * threads;
        for (unsigned long long unit = static_cast<unsigned long long>(blockIdx.x) * threads + threadIdx.x;
             unit < units; unit += stride) {
            if (is_block)
                fill_block(args, unit);
            else
                fill_floats(args, unit, values);
        }
    }

    GG_HD static void fill_block(const Args& args, unsigned long long unit) {
        const unsigned long long block = args.first + unit;
        const unsigned scale = synthetic_scale_byte(synthetic_scale_words(args.recipe, block), block);
        if (args.recipe.type == 39)
            fill_synthetic_mxfp4(args.recipe, scale, block, args.out + unit * 17);
        else
            fill_synthetic_q8_0(args.recipe, scale, block, args.out + unit * 34);
    }

    /// Those floats of counter first / 4 + unit that are asked for.
    GG_HD static void fill_floats(const Args& args, unsigned long long unit, const unsigned* values) {
        const unsigned long long counter = args.first / 4 + unit, end = args.first + args.count;
        const text::RandomWords words = synthetic_words(args.recipe, 0, counter);
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) {
            const unsigned long long i = 4 * counter + j;
            if (i < args.first || i >= end) continue;
            const unsigned value = values[synthetic_index(words.word[j])];
            if (args.recipe.type == 0)
                reinterpret_cast<unsigned*>(args.out)[i - args.first] = value;
            else
                reinterpret_cast<unsigned short*>(args.out)[i - args.first] =
                    static_cast<unsigned short>(value);
        }
    }
};

}  // namespace gg::cuda
