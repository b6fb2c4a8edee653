// DecodeAttention: attention of 1 to 8 rows, in one kernel from partial sums of q, k and v to the operand of
// the output product. Formulas as in attention_prefill.cuh.
//
// A block has one row, one key head and a part (split) of the keys; see key_units in attention_args.hpp.
//   1. While kernels before it in the chain still run, it starts reading cached keys and values: it reads the
//      list of rows and all keys and values of earlier tokens before it waits, so these must have been
//      written before the chain began (its first kernel is launched without early start). Then it adds up its
//      query heads and applies the policies, a head a warp, waiting for memory once.
//   2. Keys and values of the step's own rows are not read from the cache, which other blocks are writing,
//      but formed from the sums in the same way; the block of a row's last split appends the row.
//   3. A warp takes 16 positions at a time through tensor cores: scores = queries x keys, values += weights x
//      values, with 8 query heads as rows 0 to 7 and, as rows 8 to 15, what rounding queries and weights to
//      FP16 left over, so that only keys and values are rounded. Operands come from memory straight into
//      registers; the next 16 positions are on their way meanwhile.
//   4. The warps' sums are merged in warp order, each thread for two elements of a head. With more than one
//      split they go to the workspace, and the block that ends last merges the splits in their order.
// Bits depend on the row's position, window and number of splits alone. More than 8 query heads a key head
// are spread over warps, which read the same keys from the second-level cache.
// Bytes moved: keys and values that the row sees, once per row.
#pragma once

#include "gg/cuda/attention_decode_keys.cuh"

namespace gg::cuda {

/// Launched with decode_blocks(kv_heads, used_rows, splits) blocks or more. `slots` partial sums are added.
template <class Dims, class Block, class Operand, int rows, int slots, int splits>
struct DecodeAttention {
    using Args = DecodeAttentionArgs<typename Block::template Weights<CudaStore>>;
    using Shape = DecodeShape<Dims, rows>;
    using Heads = DecodeHeads<Dims, Block, rows, slots>;
    using Keys = DecodeKeys<Dims, rows>;

    static_assert(Dims::heads % Dims::kv_heads == 0 && Shape::group <= 64);
    static_assert(rows <= Dims::prefill_chunk, "a ring holds the window and one chunk");

    static constexpr int threads = Shape::threads;
    static constexpr int residency = Shape::spans == 1 ? 2 : 1;  ///< blocks that share a multiprocessor
    static constexpr int head_dim = Shape::head_dim, group = Shape::group;
    static constexpr int sinks_at = Shape::shared_bytes;
    static constexpr int shared_bytes = sinks_at + group * 4;

    GG_DEVICE static void run(const Args& args) {
        launch_next();
        const DecodeTask task = find_decode_task<Dims, splits>(args);
        if (task.split >= task.units.used) return stand_by();
        unsigned char* const shared = dynamic_shared();
        const int head = Shape::thread();  // whose sink this thread fetches
        float sink = 0.0f;
        if constexpr (Block::has_sinks)
            if (head < group) sink = args.weights.sink[task.kv_head * group + head];
        Keys keys(task, shared);
        keys.prefetch();
        Heads::pad_queries(shared);
        if (head < group) reinterpret_cast<float*>(shared + sinks_at)[head] = sink * log2_e;
        wait_for_previous();
        Heads::form(args, task, shared);
        __syncthreads();
        mark(fetched);
        keys.attend();
        mark(multiplied);
        keys.leave_sums();
        __syncthreads();
        mark(together);
        const DecodeAttention block(args, task, shared);
        if (task.units.used == 1)
            block.finish_alone(keys);
        else
            block.finish_with_splits(keys);
    }

  private:
    const Args& args_;
    const DecodeTask& task_;
    unsigned char* const shared_;

    GG_DEVICE DecodeAttention(const Args& args, const DecodeTask& task, unsigned char* shared)
        : args_(args), task_(task), shared_(shared) {}

    static constexpr int pairs_of_head = (head_dim + 1) / 2;
    static constexpr int pairs = group * pairs_of_head;
    static constexpr int width = Dims::heads * head_dim;
    static constexpr Size plane = Size(rows) * operand_stride(width);

    /// 1 / the softmax's denominator, the sink joining it, as a factor of values relative to `all.largest`.
    GG_DEVICE float quotient([[maybe_unused]] int head, const KeySums& all) const {
        if constexpr (Block::has_sinks) {
            const float sink = reinterpret_cast<const float*>(shared_ + sinks_at)[head];
            const float largest = gg::max(all.largest, sink), factor = exp2_fast(all.largest - largest);
            return factor / (all.sum * factor + exp2_fast(sink - largest + weight_exponent));
        }
        return 1.0f / all.sum;
    }

    /// Stores the quotients of pair i of the group's pairs.
    GG_DEVICE void store_pair(int i, const KeySums& all) const {
        const int head = i / pairs_of_head;
        const float factor = quotient(head, all);
        store_head_pair<Operand, head_dim>(args_.out + Size(task_.row) * operand_stride(width), plane,
                                           task_.kv_head * group + head, i % pairs_of_head * 2,
                                           all.values.x * factor, all.values.y * factor, args_.overflows);
    }
    GG_DEVICE void pad_row() const {
        if constexpr (operand_stride(width) > width)
            if (task_.kv_head == Dims::kv_heads - 1)
                zero_padding<Operand>(args_.out + Size(task_.row) * operand_stride(width), plane, width);
    }

    GG_DEVICE void finish_alone(const Keys& keys) const {
        jitter();
        for (int i = Shape::thread(); i < pairs; i += threads)
            store_pair(i, keys.block_sums(i / pairs_of_head, i % pairs_of_head * 2));
        pad_row();
    }

    /// A split's values in the workspace, [group][pairs_of_head], and statistics, [group].
    GG_DEVICE float2* split_values(int split) const {
        return reinterpret_cast<float2*>(args_.workspace) + split_index(split) * pairs;
    }
    GG_DEVICE float2* split_statistics(int split) const {
        return reinterpret_cast<float2*>(args_.workspace) + Size(rows) * Dims::kv_heads * splits * pairs +
               split_index(split) * group;
    }
    GG_DEVICE Size split_index(int split) const {
        return Size(task_.row * Dims::kv_heads + task_.kv_head) * splits + split;
    }

    GG_DEVICE void finish_with_splits(const Keys& keys) const {
        jitter();
        for (int i = Shape::thread(); i < pairs; i += threads) {
            const int head = i / pairs_of_head, pair = i % pairs_of_head;
            const KeySums all = keys.block_sums(head, 2 * pair);
            split_values(task_.split)[i] = all.values;
            if (pair == 0) split_statistics(task_.split)[head] = {all.largest, all.sum};
        }
        __threadfence();
        __syncthreads();
        int* const counter = args_.counters + task_.row * Dims::kv_heads + task_.kv_head;
        const bool last = threadIdx.x == 0 && atomicAdd(counter, 1) == task_.units.used - 1;
        if (last) *counter = 0;
        if (!__syncthreads_or(last)) return;
        __threadfence();
        for (int i = Shape::thread(); i < pairs; i += threads) store_pair(i, merged_splits(i));
        pad_row();
    }

    /// The sums of all splits in their order, a batch of loads under way together.
    GG_DEVICE KeySums merged_splits(int i) const {
        constexpr int batch = detail::ceil_div(splits, detail::ceil_div(splits, 16));
        KeySums all;
        for (int begin = 0; begin < task_.units.used; begin += batch) {
            float2 statistics[batch], parts[batch];
#pragma unroll
            for (int s = 0; s < batch; ++s) {
                statistics[s] = {-infinity(), 0.0f};
                parts[s] = {0.0f, 0.0f};
                if (begin + s >= task_.units.used) continue;
                statistics[s] = load_cg(split_statistics(begin + s) + i / pairs_of_head);
                parts[s] = load_cg(split_values(begin + s) + i);
            }
            all.merge(statistics, parts);
        }
        return all;
    }
};

}  // namespace gg::cuda
