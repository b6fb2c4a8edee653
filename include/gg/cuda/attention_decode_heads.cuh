// The heads that a block of DecodeAttention needs: its row's query heads and, where its keys include rows of
// this step, their keys and values. Each is the sum of partial sums in slot order, then as AppendKeys has it:
// policies, FP16. Queries become tensor-core operands, the rounded number and what rounding left over.
// Bytes moved: the partial sums of these heads.
#pragma once

#include "gg/cuda/attention_args.hpp"
#include "gg/cuda/attention_primitives.cuh"
#include "gg/cuda/head_transform.cuh"

namespace gg::cuda {

/// Sizes that follow from a model's dimensions.
template <class Dims, int rows>
struct DecodeShape {
    static constexpr int head_dim = Dims::head_dim, stride = head_stride(head_dim), half = head_dim / 2;
    static constexpr int group = Dims::heads / Dims::kv_heads;  ///< query heads of a key head
    static constexpr int chunks = stride / 8;                   ///< 16-byte pieces of a key
    static constexpr int steps = (chunks + 3) / 4;              ///< of 32 elements, for scores
    static constexpr int spans = (chunks + 7) / 8;              ///< of 64 elements, for values
    static constexpr int head_tiles = (group + 7) / 8;          ///< of 8 query heads
    static constexpr int streams = 8 / head_tiles;              ///< warps that share the positions
    static constexpr int warps = head_tiles * streams, threads = warps * warp_size;
    static constexpr QkvColumns columns = qkv_columns(Dims::heads, Dims::kv_heads, head_dim);

    // Shared memory in bytes: queries; keys and values of new rows; then for each warp what it forms heads
    // in, over which the sums that warps leave lie later, or, where space is short, over all.
    static constexpr int head_pitch = 32 * steps;       ///< floats of a head and its padding
    static constexpr int query_pitch = head_pitch + 4;  ///< 16 odd bytes against bank conflicts
    static constexpr int fresh_at = 8 * head_tiles * query_pitch * 4;  ///< FP16, key and value of a new row
    static constexpr int scratch_at = fresh_at + rows * 2 * stride * 2;
    static constexpr int scratch_pitch = head_pitch + stride;  ///< floats: a head, cosines and sines
    static constexpr int formed_bytes = scratch_at + warps * scratch_pitch * 4;
    static constexpr int value_pitch = 64 * spans + 4;
    static constexpr int sum_bytes = warps * 8 * value_pitch * 4;
    static constexpr bool sums_apart = scratch_at + sum_bytes <= 96 * 1024;
    static constexpr int sums_at = sums_apart ? scratch_at : 0;
    static constexpr int statistics_at =
        formed_bytes > sums_at + sum_bytes ? formed_bytes : sums_at + sum_bytes;
    static constexpr int shared_bytes = statistics_at + warps * 8 * 2 * 4;

    // Numbers whose range the compiler knows: loops of one round become straight code.
    GG_DEVICE static int thread() {
        const unsigned thread = threadIdx.x;
        __builtin_assume(thread < threads);
        return static_cast<int>(thread);
    }
    GG_DEVICE static int warp() { return thread() / warp_size; }
    GG_DEVICE static int lane() { return thread() % warp_size; }
};

/// What a block works on.
struct DecodeTask {
    int row, kv_head, split;
    int position;  ///< of the row
    int visible;   ///< first position that it sees
    int fresh;     ///< first position that this step appends
    KeyUnits units;
    LayerCache cache;  ///< moved on to the key head
    int fresh_row;     ///< the row of position `fresh`
    int fresh_rows;    ///< new rows that the split's keys include
    bool appends;      ///< whether this block appends the row
    int slot;          ///< of the row's position in the cache
};

/// What block `blockIdx.x` works on. Reads the list of rows.
template <class Dims, int splits, class Args>
GG_DEVICE DecodeTask find_decode_task(const Args& args) {
    const int pairs = args.used_rows * Dims::kv_heads, block = static_cast<int>(blockIdx.x);
    DecodeTask task;
    task.split = block / pairs;
    task.row = block % pairs / Dims::kv_heads;
    task.kv_head = block % Dims::kv_heads;
    const Row* const row = args.row_list + task.row;
    task.position = load_cg(&row->position);
    task.fresh_row = load_cg(&row->first);
    const int capacity = load_cg(&row->capacity), window = args.place.window;
    auto* const cache = reinterpret_cast<unsigned char*>(load_cg(reinterpret_cast<const Size*>(&row->cache)));
    task.cache = layer_cache<Dims>(cache, capacity, args.place);
    const Size head = Size(task.kv_head) * task.cache.positions * head_stride(Dims::head_dim);
    task.cache.keys += head;
    task.cache.values += head;
    task.fresh = task.position - (task.row - task.fresh_row);
    task.visible = window > 0 && task.position >= window ? task.position - window + 1 : 0;
    task.units = key_units(task.position, window, task.split, splits);
    task.fresh_rows = task.units.end * unit_keys > task.fresh ? task.row - task.fresh_row + 1 : 0;
    task.appends = task.split == task.units.used - 1;
    task.slot =
        static_cast<int>(static_cast<unsigned>(task.position) % static_cast<unsigned>(task.cache.positions));
    return task;
}

/// Forms the heads in shared memory, a head a warp.
template <class Dims, class Block, int rows, int slots>
struct DecodeHeads {
    using Args = DecodeAttentionArgs<typename Block::template Weights<CudaStore>>;
    using Shape = DecodeShape<Dims, rows>;
    using Task = DecodeTask;

    static constexpr int head_dim = Shape::head_dim, stride = Shape::stride, group = Shape::group;

    /// Zeroes the queries that pad a tile of eight.
    GG_DEVICE static void pad_queries(unsigned char* shared) {
        float* const queries = reinterpret_cast<float*>(shared);
        for (int i = group * Shape::query_pitch + Shape::thread();
             i < 8 * Shape::head_tiles * Shape::query_pitch; i += Shape::threads)
            queries[i] = 0.0f;
    }

    /// Adds up the sums of the block's heads, applies the policies and rounds: query heads, new keys and
    /// values in turn. A warp waits for memory once for `batch` heads.
    GG_DEVICE static void form(const Args& args, const Task& task, unsigned char* shared) {
        constexpr int passes = detail::ceil_div(group + 2 * rows, batch * Shape::warps);
        const int heads = group + 2 * task.fresh_rows;
#pragma unroll 1
        for (int pass = 0; pass < passes; ++pass) {
            RawHead raw[batch];
#pragma unroll
            for (int b = 0; b < batch; ++b) {
                const int i = (pass * batch + b) * Shape::warps + Shape::warp();
                if (i < heads) load(args, place_of(task, i), raw[b]);
            }
#pragma unroll
            for (int b = 0; b < batch; ++b) {
                const int i = (pass * batch + b) * Shape::warps + Shape::warp();
                if (i < heads) form_head(args, task, shared, i, raw[b]);
            }
        }
    }

  private:
    static constexpr int pieces = detail::ceil_div(Shape::head_pitch, 2 * warp_size);  ///< pairs of a lane
    static constexpr int turns = detail::ceil_div(Shape::half, warp_size);  ///< pairs that a lane turns
    static constexpr int batch = slots * pieces <= 8 ? 2 : 1;

    /// A lane's part of a head: elements 2 (lane + 32 p), + 1 of every slot, cosines and sines lane + 32 p.
    struct RawHead {
        float2 part[slots][pieces];
        float cosine[turns > 0 ? turns : 1], sine[turns > 0 ? turns : 1];
    };

    struct Place {
        int row, column;  ///< of the product
    };

    GG_DEVICE static Place place_of(const Task& task, int i) {
        if (i < group) return {task.row, (task.kv_head * group + i) * head_dim};
        const int fresh = i - group;
        return {task.fresh_row + fresh / 2,
                (fresh % 2 ? Shape::columns.v : Shape::columns.k) + task.kv_head * head_dim};
    }

    /// Elements d (even) and d + 1 of a head of which `from` is element d; 0 behind its end.
    GG_DEVICE static float2 load_pair(const float* from, int d) {
        float2 pair = {0.0f, 0.0f};
        if constexpr (head_dim % 2 == 0) {
            if (d < head_dim) pair = load_cg(reinterpret_cast<const float2*>(from));
        } else {
            if (d < head_dim) pair.x = load_cg(from);
            if (d + 1 < head_dim) pair.y = load_cg(from + 1);
        }
        return pair;
    }

    GG_DEVICE static void load(const Args& args, Place place, RawHead& raw) {
        constexpr Size width = Shape::columns.width;
        const float* const from = args.product + place.row * width + place.column;
#pragma unroll
        for (int slot = 0; slot < slots; ++slot)
#pragma unroll
            for (int p = 0; p < pieces; ++p) {
                const int d = 2 * (Shape::lane() + warp_size * p);
                raw.part[slot][p] = load_pair(from + slot * rows * width + d, d);
            }
        if constexpr (Block::has_rotary)
#pragma unroll
            for (int p = 0; p < turns; ++p) {
                const int i = Shape::lane() + warp_size * p;
                if (i >= Shape::half) continue;
                raw.cosine[p] = load_cg(args.cosines + place.row * Shape::half + i);
                raw.sine[p] = load_cg(args.sines + place.row * Shape::half + i);
            }
    }

    /// Head i: a query becomes an operand in its row, a key or value FP16 in its place and in the cache.
    GG_DEVICE static void form_head(const Args& args, const Task& task, unsigned char* shared, int i,
                                    const RawHead& raw) {
        const bool is_query = i < group;
        const int fresh = i - group, is_value = fresh % 2;
        float* const scratch =
            reinterpret_cast<float*>(shared + Shape::scratch_at) + Shape::warp() * Shape::scratch_pitch;
        float* const x = is_query ? reinterpret_cast<float*>(shared) + i * Shape::query_pitch : scratch;
        float* const table = scratch + Shape::head_pitch;
        leave(raw, x, table);
        __syncwarp();
        if (i < Shape::warps) mark(ready);
        if (is_query || !is_value) {
            HeadPlace place{is_query ? task.kv_head * group + i : task.kv_head, !is_query, nullptr, nullptr};
            if constexpr (Block::has_rotary) place.cosines = table, place.sines = table + Shape::half;
            transform_head<Dims, Block>(args.weights, place, x, Shape::lane());
        }
        if (is_query) {
            split_query(x, task.appends ? args.overflows : nullptr);
        } else {
            unsigned short* const rounded = reinterpret_cast<unsigned short*>(shared + Shape::fresh_at);
            const bool own = task.appends && fresh / 2 == task.fresh_rows - 1;
            round_head(x, rounded + fresh * stride, own,
                       (is_value ? task.cache.values : task.cache.keys) + Size(task.slot) * stride,
                       args.overflows);
        }
        __syncwarp();  // before the next head takes the scratch
    }

    /// The sums in slot order, and the table, to shared memory.
    GG_DEVICE static void leave(const RawHead& raw, float* x, [[maybe_unused]] float* table) {
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            float2 sum = raw.part[0][p];
#pragma unroll
            for (int slot = 1; slot < slots; ++slot) {
                sum.x += raw.part[slot][p].x;
                sum.y += raw.part[slot][p].y;
            }
            const int d = 2 * (Shape::lane() + warp_size * p);
            if (d < Shape::head_pitch) *reinterpret_cast<float2*>(x + d) = sum;
        }
        if constexpr (Block::has_rotary)
#pragma unroll
            for (int p = 0; p < turns; ++p) {
                const int i = Shape::lane() + warp_size * p;
                if (i >= Shape::half) continue;
                table[i] = raw.cosine[p];
                table[Shape::half + i] = raw.sine[p];
            }
    }

    /// Rounds a new key or value to FP16 and appends it, if it is this block's own. (Said by a flag: of a
    /// pointer that is null otherwise, the compiler's code read the null before it was there.)
    GG_DEVICE static void round_head(const float* x, unsigned short* fresh, bool own, unsigned short* cached,
                                     int* overflows) {
        for (int i = 2 * Shape::lane(); i < stride; i += 2 * warp_size) {
            *reinterpret_cast<unsigned*>(fresh + i) = pack_half_saturated(x[i], x[i + 1]);
            if (own) store_operand<HalfOperand>(cached, 0, i, x[i], x[i + 1], overflows);
        }
    }

    /// Replaces two floats at a time by tensor-core operands, in place: {high parts, low parts}.
    GG_DEVICE static void split_query(float* x, int* overflows) {
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            const int d = 2 * (Shape::lane() + warp_size * p);
            if (d >= Shape::head_pitch) continue;
            float2* const mine = reinterpret_cast<float2*>(x + d);
            const float2 raw = *mine;
            const float low = saturate_to_half(raw.x), high = saturate_to_half(raw.y);
            if (overflows && (low != raw.x || high != raw.y)) atomicAdd(overflows, 1);
            const unsigned bits = pack_half(low, high);
            *mine = {float_from_bits(bits),
                     float_from_bits(pack_half(low - low_half_value(bits), high - high_half_value(bits)))};
        }
    }
};

}  // namespace gg::cuda
