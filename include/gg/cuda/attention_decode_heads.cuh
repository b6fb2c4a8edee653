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
    static constexpr int warps = head_tiles * streams;
    static constexpr QkvColumns columns = qkv_columns(Dims::heads, Dims::kv_heads, head_dim);

    // Shared memory in bytes; the merge of warps reuses what forming queries took.
    static constexpr int query_pitch = 32 * steps + 4;  ///< floats; 16 odd bytes against bank conflicts
    static constexpr int query_bytes = 8 * head_tiles * query_pitch * 4;
    static constexpr int raw_pitch = 2 * stride;  ///< floats of a new row: key, value
    static constexpr int raw_at = query_bytes, table_at = raw_at + rows * raw_pitch * 4;
    static constexpr int fresh_at = table_at + rows * stride * 4;  ///< FP16, key and value of a new row
    static constexpr int formed_bytes = fresh_at + rows * 2 * stride * 2;
    static constexpr int value_pitch = 64 * spans + 4;
    static constexpr int merge_bytes = warps * 8 * value_pitch * 4;
    static constexpr int statistics_at = formed_bytes > merge_bytes ? formed_bytes : merge_bytes;
    static constexpr int shared_bytes = statistics_at + warps * 8 * 2 * 4;
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
    bool has_fresh;    ///< whether the split's keys include any of this step's
    bool appends;      ///< whether this block appends the row
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
    task.has_fresh = task.units.end * unit_keys > task.fresh;
    task.appends = task.split == task.units.used - 1;
    return task;
}

/// Forms the heads in shared memory.
template <class Dims, class Block, int rows, int slots>
struct DecodeHeads {
    using Args = DecodeAttentionArgs<typename Block::template Weights<CudaStore>>;
    using Shape = DecodeShape<Dims, rows>;
    using Task = DecodeTask;

    static constexpr int threads = Shape::warps * warp_size;
    static constexpr int head_dim = Shape::head_dim, stride = Shape::stride, group = Shape::group;

    /// Adds up the sums of the block's heads into shared memory: queries, then keys and values of the new
    /// rows, then the rows' cosines and sines. Padding becomes 0.
    GG_DEVICE static void gather(const Args& args, const Task& task, unsigned char* shared) {
        constexpr int query_pitch = Shape::query_pitch, raw_pitch = Shape::raw_pitch;
        constexpr int query_items = 8 * Shape::head_tiles * query_pitch;
        constexpr int table_items = Block::has_rotary ? 2 * Shape::half : 0;
        const int fresh_rows = task.has_fresh ? task.row - task.fresh_row + 1 : 0;
        const int table_rows = fresh_rows > 0 ? fresh_rows : 1;
        const int items = query_items + fresh_rows * raw_pitch + table_rows * table_items;
        float* const queries = reinterpret_cast<float*>(shared);
        float* const raw = reinterpret_cast<float*>(shared + Shape::raw_at);
        float* const tables = reinterpret_cast<float*>(shared + Shape::table_at);
        constexpr int batch = 4;  // loads of this many items are under way together
        for (int begin = static_cast<int>(threadIdx.x); begin < items; begin += batch * threads) {
            float value[batch];
            float* to[batch];
#pragma unroll
            for (int b = 0; b < batch; ++b) {
                int i = begin + b * threads;
                to[b] = nullptr;
                value[b] = 0.0f;
                if (i >= items) continue;
                if (i < query_items) {
                    const int head = i / query_pitch, d = i % query_pitch;
                    to[b] = queries + i;
                    if (head < group && d < head_dim)
                        value[b] = product(args, task.row, (task.kv_head * group + head) * head_dim + d);
                    continue;
                }
                i -= query_items;
                if (i < fresh_rows * raw_pitch) {
                    const int row = i / raw_pitch, in_row = i % raw_pitch, d = in_row % stride;
                    const int column = in_row < stride ? Shape::columns.k : Shape::columns.v;
                    to[b] = raw + i;
                    if (d < head_dim)
                        value[b] = product(args, task.fresh_row + row, column + task.kv_head * head_dim + d);
                    continue;
                }
                if constexpr (table_items > 0) {
                    // Without new rows there is one table, the row's own, at place 0.
                    i -= fresh_rows * raw_pitch;
                    const int place = i / table_items, j = i % table_items;
                    const Size row = task.row - table_rows + 1 + place;
                    to[b] = tables + place * stride + j;
                    value[b] = j < Shape::half ? load_cg(args.cosines + row * Shape::half + j)
                                               : load_cg(args.sines + row * Shape::half + j - Shape::half);
                }
            }
#pragma unroll
            for (int b = 0; b < batch; ++b)
                if (to[b]) *to[b] = value[b];
        }
    }

    /// Applies the policies and rounds, a head a warp: query heads, new keys, new values.
    GG_DEVICE static void form(const Args& args, const Task& task, unsigned char* shared) {
        const int fresh_rows = task.has_fresh ? task.row - task.fresh_row + 1 : 0;
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
        float* const raw = reinterpret_cast<float*>(shared + Shape::raw_at);
        auto* const fresh = reinterpret_cast<unsigned short*>(shared + Shape::fresh_at);
        const float* const tables = reinterpret_cast<const float*>(shared + Shape::table_at);
        const int own_table = fresh_rows > 0 ? fresh_rows - 1 : 0;
        for (int i = warp; i < group + 2 * fresh_rows; i += Shape::warps) {
            if (i < group) {
                float* const x = reinterpret_cast<float*>(shared) + i * Shape::query_pitch;
                transform(args, {task.kv_head * group + i, false, nullptr, nullptr},
                          tables + own_table * stride, x);
                split_query(x, task.appends ? args.overflows : nullptr);
                continue;
            }
            const int row = (i - group) / 2, is_value = (i - group) % 2;
            float* const x = raw + row * Shape::raw_pitch + is_value * stride;
            if (!is_value) transform(args, {task.kv_head, true, nullptr, nullptr}, tables + row * stride, x);
            unsigned short* cached = nullptr;
            if (task.appends && row == fresh_rows - 1)
                cached = (is_value ? task.cache.values : task.cache.keys) +
                         Size(static_cast<unsigned>(task.position % task.cache.positions)) * stride;
            round_head(x, fresh + (2 * row + is_value) * stride, cached, args.overflows);
        }
    }

  private:
    GG_DEVICE static float product(const Args& args, int row, int column) {
        const float* const p = args.product + Size(row) * Shape::columns.width + column;
        float sum = load_cg(p);
#pragma unroll
        for (int slot = 1; slot < slots; ++slot) sum += load_cg(p + Size(slot) * rows * Shape::columns.width);
        return sum;
    }

    GG_DEVICE static void transform(const Args& args, HeadPlace place, const float* table, float* x) {
        if constexpr (Block::has_rotary) {
            place.cosines = table;
            place.sines = table + Shape::half;
        }
        transform_head<Dims, Block>(args.weights, place, x, static_cast<int>(threadIdx.x) % warp_size);
    }

    /// Rounds a new key or value to FP16 and appends it, if it is this block's.
    GG_DEVICE static void round_head(const float* x, unsigned short* fresh, unsigned short* cached,
                                     int* overflows) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        for (int i = 2 * lane; i < stride; i += 2 * warp_size) {
            *reinterpret_cast<unsigned*>(fresh + i) = pack_half_saturated(x[i], x[i + 1]);
            if (cached) store_operand<HalfOperand>(cached, 0, i, x[i], x[i + 1], overflows);
        }
    }

    /// Replaces eight floats at a time by tensor-core operands, in place: {high parts, low parts} of each two
    /// elements.
    GG_DEVICE static void split_query(float* x, int* overflows) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        if (lane >= 4 * Shape::steps) return;
        float* const mine = x + 8 * lane;
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            const float low = saturate_to_half(mine[i]), high = saturate_to_half(mine[i + 1]);
            if (overflows && (low != mine[i] || high != mine[i + 1])) atomicAdd(overflows, 1);
            const unsigned bits = pack_half(low, high);
            mine[i] = float_from_bits(bits);
            mine[i + 1] =
                float_from_bits(pack_half(low - low_half_value(bits), high - high_half_value(bits)));
        }
    }
};

}  // namespace gg::cuda
