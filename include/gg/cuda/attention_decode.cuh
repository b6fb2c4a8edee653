// DecodeAttention: attention of 1 to 8 rows, in one kernel from partial sums of q, k and v to the operand of
// the output product. Formulas as in attention_prefill.cuh.
//
// A block has one row, one key head and a part (split) of the keys; see key_units in attention_args.hpp.
//   1. It adds up its query heads, applies the policies, and starts reading cached keys and values meanwhile.
//   2. Keys and values of the step's own rows are not read from the cache, which other blocks are writing,
//      but formed from the sums in the same way; the block of a row's last split appends the row.
//   3. A warp takes 16 positions at a time through tensor cores: scores = queries x keys, values += weights x
//      values, with 8 query heads as rows 0 to 7 and, as rows 8 to 15, what rounding queries and weights to
//      FP16 left over, so that only keys and values are rounded. Operands come from memory straight into
//      registers; the next 16 positions are on their way meanwhile.
//   4. The warps' sums are merged in warp order. With more than one split they go to the workspace, and the
//      block that ends last merges the splits in their order.
// Bits depend on the row's position, window and number of splits alone. More than 8 query heads a key head
// are spread over warps, which read the same keys from the second-level cache.
// Bytes moved: keys and values that the row sees, once per row.
#pragma once

#include "gg/cuda/attention_decode_keys.cuh"

namespace gg::cuda {

/// Launched with decode_blocks(kv_heads, used_rows, splits) blocks. `slots` partial sums are added. With
/// `rows_are_old` the list of rows and all cached keys before this step's were written before the chain
/// began, and are read while the kernels before this one still run.
template <class Dims, class Block, class Operand, int rows, int slots, int splits, bool rows_are_old = false>
struct DecodeAttention {
    using Args = DecodeAttentionArgs<typename Block::template Weights<CudaStore>>;
    using Shape = DecodeShape<Dims, rows>;
    using Heads = DecodeHeads<Dims, Block, rows, slots>;
    using Keys = DecodeKeys<Dims, rows>;

    static_assert(Dims::heads % Dims::kv_heads == 0 && Shape::group <= 64);
    static_assert(rows <= Dims::prefill_chunk, "a ring holds the window and one chunk");

    static constexpr int threads = Heads::threads;
    static constexpr int residency = Shape::spans == 1 ? 2 : 1;  ///< blocks that share a multiprocessor
    static constexpr int head_dim = Shape::head_dim, group = Shape::group;
    static constexpr int factor_bytes = group * (splits + 1) * 4;
    static constexpr int sinks_at = Shape::shared_bytes > factor_bytes ? Shape::shared_bytes : factor_bytes;
    static constexpr int shared_bytes = sinks_at + group * 4;

    GG_DEVICE static void run(const Args& args) {
        launch_next();
        if constexpr (!rows_are_old) wait_for_previous();
        const DecodeTask task = find_decode_task<Dims, splits>(args);
        if (task.split >= task.units.used) {
            if constexpr (rows_are_old) wait_for_previous();
            return;
        }
        unsigned char* const shared = dynamic_shared();
        const int head = static_cast<int>(threadIdx.x);  // whose sink this thread fetches
        float sink = 0.0f;
        if constexpr (Block::has_sinks)
            if (head < group) sink = args.weights.sink[task.kv_head * group + head];
        Keys keys(task, shared);
        keys.prefetch();
        if constexpr (rows_are_old) wait_for_previous();
        Heads::gather(args, task, shared);
        if (head < group) reinterpret_cast<float*>(shared + sinks_at)[head] = sink * log2_e;
        __syncthreads();
        Heads::form(args, task, shared);
        __syncthreads();
        keys.attend();
        keys.leave_sums();
        __syncthreads();
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

    /// 1 / the softmax's denominator, the sink joining it, as a factor of values relative to `all.largest`.
    GG_DEVICE float quotient([[maybe_unused]] int head, SoftmaxStatistics all) const {
        if constexpr (Block::has_sinks) {
            const float sink = reinterpret_cast<const float*>(shared_ + sinks_at)[head];
            const float largest = gg::max(all.largest, sink), factor = exp2_fast(all.largest - largest);
            return factor / (all.sum * factor + exp2_fast(sink - largest + weight_exponent));
        }
        return 1.0f / all.sum;
    }

    static constexpr int pairs_of_head = (head_dim + 1) / 2;
    static constexpr int width = Dims::heads * head_dim;
    static constexpr Size plane = Size(rows) * operand_stride(width);

    GG_DEVICE unsigned short* out_row() const { return args_.out + Size(task_.row) * operand_stride(width); }
    GG_DEVICE void store_pair(int head, int pair, float2 value) const {
        store_head_pair<Operand, head_dim>(out_row(), plane, task_.kv_head * group + head, 2 * pair, value.x,
                                           value.y, args_.overflows);
    }
    GG_DEVICE void pad_row() const {
        if (task_.kv_head == Dims::kv_heads - 1) zero_padding<Operand>(out_row(), plane, width);
    }

    GG_DEVICE void finish_alone(const Keys& keys) const {
        jitter();
        for (int i = static_cast<int>(threadIdx.x); i < group * pairs_of_head; i += threads) {
            const int head = i / pairs_of_head, pair = i % pairs_of_head;
            const float factor = quotient(head, keys.block_statistics(head));
            const float2 value = keys.block_pair(head, 2 * pair);
            store_pair(head, pair, {value.x * factor, value.y * factor});
        }
        pad_row();
    }

    /// A split's values in the workspace, [group][2 pairs_of_head], and statistics, [group].
    static constexpr int split_floats = group * 2 * pairs_of_head;
    GG_DEVICE float* split_values(int split) const {
        return args_.workspace +
               (Size(task_.row * Dims::kv_heads + task_.kv_head) * splits + split) * split_floats;
    }
    GG_DEVICE float2* split_statistics(int split) const {
        float* const behind = args_.workspace + Size(rows) * Dims::kv_heads * splits * split_floats;
        return reinterpret_cast<float2*>(behind) +
               (Size(task_.row * Dims::kv_heads + task_.kv_head) * splits + split) * group;
    }

    GG_DEVICE void finish_with_splits(const Keys& keys) const {
        jitter();
        for (int i = static_cast<int>(threadIdx.x); i < group * pairs_of_head; i += threads)
            reinterpret_cast<float2*>(split_values(task_.split))[i] =
                keys.block_pair(i / pairs_of_head, i % pairs_of_head * 2);
        for (int head = static_cast<int>(threadIdx.x); head < group; head += threads) {
            const SoftmaxStatistics all = keys.block_statistics(head);
            split_statistics(task_.split)[head] = {all.largest, all.sum};
        }
        __threadfence();
        __syncthreads();
        int* const flag = reinterpret_cast<int*>(shared_);
        int* const counter = args_.counters + task_.row * Dims::kv_heads + task_.kv_head;
        if (threadIdx.x == 0) {
            *flag = atomicAdd(counter, 1) == task_.units.used - 1;
            if (*flag) *counter = 0;
        }
        __syncthreads();
        const bool last = *flag;
        __syncthreads();
        if (!last) return;
        __threadfence();
        merge_splits();
        pad_row();
    }

    /// Factors of the splits, [group][splits + 1], the last the quotient, then the sums in split order.
    GG_DEVICE void merge_splits() const {
        constexpr int pitch = splits + 1;
        float* const factors = reinterpret_cast<float*>(shared_);
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        for (int head = static_cast<int>(threadIdx.x) / warp_size; head < group; head += Shape::warps) {
            float largest = -infinity(), sum = 0.0f;
            for (int s = lane; s < task_.units.used; s += warp_size)
                largest = gg::max(largest, load_cg(split_statistics(s) + head).x);
            largest = warp_max(largest);
            for (int s = lane; s < task_.units.used; s += warp_size) {
                const float2 part = load_cg(split_statistics(s) + head);
                const float factor = exp2_fast(part.x - largest);
                factors[head * pitch + s] = factor;
                sum = __fmaf_rn(part.y, factor, sum);
            }
            sum = warp_sum(sum);
            if (lane == 0) factors[head * pitch + splits] = quotient(head, {largest, sum});
        }
        __syncthreads();
        constexpr int batch = splits < 36 ? splits : 16;  // loads under way together
        for (int i = static_cast<int>(threadIdx.x); i < group * pairs_of_head; i += threads) {
            const int head = i / pairs_of_head;
            float2 value = {0.0f, 0.0f};
            for (int begin = 0; begin < task_.units.used; begin += batch) {
                float2 part[batch];
#pragma unroll
                for (int s = 0; s < batch; ++s)
                    if (begin + s < task_.units.used)
                        part[s] = load_cg(reinterpret_cast<const float2*>(split_values(begin + s)) + i);
#pragma unroll
                for (int s = 0; s < batch; ++s)
                    if (begin + s < task_.units.used) {
                        const float factor = factors[head * pitch + begin + s];
                        value.x = __fmaf_rn(part[s].x, factor, value.x);
                        value.y = __fmaf_rn(part[s].y, factor, value.y);
                    }
            }
            const float factor = factors[head * pitch + splits];
            store_pair(head, i % pairs_of_head, {value.x * factor, value.y * factor});
        }
    }
};

}  // namespace gg::cuda
