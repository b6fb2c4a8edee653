// Attention of a decoding step: 1 and 8 rows, each of a sequence of its own, of a full and of a sliding
// layer. Sequences take turns. Bytes are the keys and values that a row sees.
#include "attention.cuh"
#include "gg/cuda/attention_decode.cuh"
#include "gg/cuda/launch.hpp"
#include "gg/cuda/qkv_stage.cuh"

namespace gg::bench {

namespace {

cuda::Row row_at(int row, int position, int capacity, unsigned char* cache) {
    return {0, position, row, capacity, cache, nullptr, nullptr};
}

/// A layer that slides holds what it holds in the engine, which appends up to 2048 rows at once.
struct StepOss : Oss {
    static constexpr int prefill_chunk = 2048;
};

template <int rows>
class DecodeAttentionBlock {
    static constexpr int slots = cuda::QkvShape<Oss, format::Q8_0, rows>::plan.slots;
    static constexpr int splits = cuda::decode_splits(Oss::multiprocessors, Oss::kv_heads, rows);
    static constexpr int mixed_width = Oss::heads * Oss::head_dim;
    using Stage = cuda::DecodeAttention<StepOss, OssAttention, cuda::HalfOperand, rows, slots, splits>;

  public:
    DecodeAttentionBlock(Bench& bench, int tokens, int window)
        : bench_(bench),
          position_(tokens - 1),
          capacity_((tokens + 63) / 64 * 64),
          place_{0, 0, window},
          cache_bytes_(size(position_bytes) * size(positions())),
          turns_(copies_beyond_cache(bench, double{rows} * position_bytes * seen())),
          cache_(random_sixteen(size(turns_, rows) * cache_bytes_ / 2, half_ones, 41)),
          product_(random_floats(size(slots, rows, oss_qkv.width), -0.5f, 0.5f, 42)),
          rotations_(rows),
          out_(buffer<unsigned short>(size(rows, mixed_width))),
          workspace_(buffer<float>(cuda::decode_workspace_floats(Oss::heads, Oss::head_dim, rows, splits))),
          counters_(buffer<int>(size(rows, Oss::kv_heads))),
          overflows_(buffer<int>(1)) {
        std::vector<cuda::Row> list;
        for (int turn = 0; turn < turns_; ++turn)
            for (int n = 0; n < rows; ++n) list.push_back(row_at(n, position_, capacity_, cache_of(turn, n)));
        list_ = buffer(list);
    }

    Result run() {
        const auto call = [&](cudaStream_t stream, int i) {
            const cuda::DecodeAttentionArgs<SinkWeights::Weights> args{sinks_.weights(),
                                                                       product_.data(),
                                                                       rotations_.device_cosines.data(),
                                                                       rotations_.device_sines.data(),
                                                                       list_.data() + i % turns_ * rows,
                                                                       place_,
                                                                       rows,
                                                                       out_.data(),
                                                                       workspace_.data(),
                                                                       counters_.data(),
                                                                       overflows_.data()};
            cuda::launch<Stage>(dim3(static_cast<unsigned>(cuda::decode_blocks(Oss::kv_heads, rows, splits))),
                                args, stream, {.early = i > 0});
        };
        call(nullptr, 0);
        Check check("double");
        for (int n = 0; n < rows; n += 5)
            for (const int head : {0, 37, Oss::heads - 1}) check_head(check, n, head);
        return {
            time_calls(bench_, turns_, call), double{rows} * position_bytes * seen(), 0, check.text(), {}};
    }

  private:
    int seen() const { return place_.window > 0 ? std::min(place_.window, position_ + 1) : position_ + 1; }
    int positions() const {
        return place_.window > 0 ? cuda::sliding_capacity(Oss::window, StepOss::prefill_chunk, capacity_)
                                 : capacity_;
    }
    unsigned char* cache_of(int turn, int n) const {
        return reinterpret_cast<unsigned char*>(cache_.data()) + size(turn * rows + n) * cache_bytes_;
    }

    /// The row's own key and value are what the kernel appended: they are in the cache by now.
    void check_head(Check& check, int n, int head) const {
        const int kv_head = head / (Oss::heads / Oss::kv_heads), last = position_, first = last + 1 - seen();
        std::vector<double> query(Oss::head_dim), own_key(Oss::head_dim), own_value(Oss::head_dim);
        const auto add = [&](std::vector<double>& to, int slot, int column) {
            const auto part =
                read(product_.data() + size(slot * rows + n) * oss_qkv.width + column, to.size());
            for (std::size_t i = 0; i < to.size(); ++i) to[i] += static_cast<double>(part[i]);
        };
        for (int slot = 0; slot < slots; ++slot) {
            add(query, slot, head * Oss::head_dim);
            add(own_key, slot, oss_qkv.k + kv_head * Oss::head_dim);
            add(own_value, slot, oss_qkv.v + kv_head * Oss::head_dim);
        }
        // keys [kv_heads][positions][head_dim], then values
        const std::size_t head_size = size(positions(), Oss::head_dim);
        const auto* cache = reinterpret_cast<const unsigned short*>(cache_of(0, n));
        const HeadBits keys = read(cache + size(kv_head) * head_size, head_size),
                       values = read(cache + size(Oss::kv_heads + kv_head) * head_size, head_size);
        const auto at = [&](const HeadBits& bits, int j) {
            return half_head(bits.data() + size(j % positions()) * Oss::head_dim);
        };
        const std::vector<float> key = rotated_head(own_key.data(), rotations_.place(n));
        for (int i = 0; i < Oss::head_dim; ++i) {
            check.see(static_cast<double>(at(keys, last)[size(i)]), static_cast<double>(key[size(i)]), 2e-3,
                      "appended key");
            check.see(static_cast<double>(at(values, last)[size(i)]), own_value[size(i)], 2e-3,
                      "appended value");
        }
        const auto expected = attend(
            rotated_head(query.data(), rotations_.place(n)), static_cast<double>(sinks_.host[size(head)]),
            first, last, [&](int j) { return at(keys, j); }, [&](int j) { return at(values, j); });
        const HeadBits found =
            read(out_.data() + size(n * mixed_width + head * Oss::head_dim), Oss::head_dim);
        for (int i = 0; i < Oss::head_dim; ++i)
            check.see(static_cast<double>(format::half_to_float(found[size(i)])), expected[size(i)].value,
                      1e-3 * expected[size(i)].magnitude + 0x1p-20,
                      "row " + std::to_string(n) + ", head " + std::to_string(head) + ", element " +
                          std::to_string(i));
    }

    Bench& bench_;
    int position_, capacity_;
    cuda::LayerPlace place_;
    std::size_t cache_bytes_;
    int turns_;
    SinkWeights sinks_;
    cuda::DeviceBuffer<unsigned short> cache_;
    cuda::DeviceBuffer<float> product_;
    Rotations rotations_;
    cuda::DeviceBuffer<unsigned short> out_;
    cuda::DeviceBuffer<float> workspace_;
    cuda::DeviceBuffer<int> counters_, overflows_;
    cuda::DeviceBuffer<cuda::Row> list_;
};

template <int rows>
void bench_rows_of_attention(Bench& bench) {
    for (const int window : {0, Oss::window})
        for (const int tokens : {128, 8192, 32768})
            bench.measure(window > 0 ? "decode: attention, window 128" : "decode: attention",
                          std::to_string(rows) + (rows == 1 ? " row, " : " rows, ") + std::to_string(tokens) +
                              " tokens",
                          [&] { return DecodeAttentionBlock<rows>(bench, tokens, window).run(); });
}

}  // namespace

void bench_decode_attention(Bench& bench) {
    bench_rows_of_attention<1>(bench);
    bench_rows_of_attention<8>(bench);
}

}  // namespace gg::bench
