// Attention of a prompt from its beginning, and the appending of its keys and values before it.
// Operations are the multiplications and additions with keys and values that rows see.
#include "attention.cuh"
#include "gg/cuda/attention_append.cuh"
#include "gg/cuda/attention_prefill_warpgroup.cuh"
#include "gg/cuda/launch.hpp"

namespace gg::bench {

namespace {

class PrefillAttentionBlock {
    static constexpr int mixed_width = Oss::heads * Oss::head_dim;
    using Append = cuda::AppendKeys<Oss, OssAttention>;
    using Stage = cuda::PrefillAttentionFor<Oss, OssAttention, cuda::HalfOperand, true>;

  public:
    PrefillAttentionBlock(Bench& bench, int rows, int window)
        : bench_(bench),
          rows_(rows),
          capacity_((rows + 63) / 64 * 64),
          place_{0, 0, window},
          product_(random_floats(size(rows, oss_qkv.width), -1.0f, 1.0f, 43)),
          rotations_(rows),
          queries_(buffer<unsigned short>(size(rows, mixed_width))),
          cache_(buffer<unsigned short>(size(capacity_) * position_bytes / 2)),
          out_(buffer<unsigned short>(size(rows, mixed_width))),
          overflows_(buffer<int>(1)) {
        append(nullptr);
    }

    Result run_append() {
        // [rows][width] in, queries and cache out
        const double bytes = double(rows_) * (4.0 * oss_qkv.width + 2.0 * mixed_width + position_bytes);
        Check check("float");
        const auto queries = read(queries_.data(), queries_.size());
        for (const int row : {0, rows_ / 2, rows_ - 1})
            for (const int head : {0, Oss::heads - 1}) {
                const auto part = read(product_.data() + size(row, oss_qkv.width) + size(head, Oss::head_dim),
                                       Oss::head_dim);
                const std::vector<double> x(part.begin(), part.end());
                const std::vector<float> expected = rotated_head(x.data(), rotations_.place(row));
                const std::vector<float> found =
                    half_head(queries.data() + size(row, mixed_width) + size(head, Oss::head_dim));
                for (std::size_t i = 0; i < found.size(); ++i)
                    check.see(static_cast<double>(found[i]), static_cast<double>(expected[i]), 2e-3,
                              "query of row " + std::to_string(row));
            }
        return {time_calls(bench_, 1, [&](cudaStream_t stream, int) { append(stream); }),
                bytes,
                0,
                check.text(),
                {}};
    }

    Result run() {
        const auto call = [&](cudaStream_t stream, int) {
            const cuda::PrefillAttentionArgs<SinkWeights::Weights> args{
                sinks_.weights(), queries_.data(),  bytes_of_cache(), capacity_, place_, 0, rows_,
                out_.data(),      overflows_.data()};
            cuda::launch<Stage>(dim3(static_cast<unsigned>(cuda::warpgroup_prefill_blocks(
                                    Oss::heads, Oss::kv_heads, Oss::head_dim, rows_))),
                                args, stream);
        };
        call(nullptr, 0);
        Check check("double");
        for (const int row : {0, 130, rows_ / 2 + 1, rows_ - 1})
            for (const int head : {0, 37, Oss::heads - 1}) check_head(check, row, head);
        double keys = 0;  // that all rows see
        for (int row = 0; row < rows_; ++row) keys += seen(row);
        return {time_calls(bench_, 1, call), 0, keys * Oss::heads * Oss::head_dim * 4, check.text(), {}};
    }

  private:
    int seen(int row) const { return place_.window > 0 ? std::min(place_.window, row + 1) : row + 1; }
    unsigned char* bytes_of_cache() const { return reinterpret_cast<unsigned char*>(cache_.data()); }

    void append(cudaStream_t stream) const {
        const cuda::AppendKeysArgs<SinkWeights::Weights> args{sinks_.weights(),
                                                              product_.data(),
                                                              rotations_.device_cosines.data(),
                                                              rotations_.device_sines.data(),
                                                              queries_.data(),
                                                              bytes_of_cache(),
                                                              capacity_,
                                                              place_,
                                                              0,
                                                              rows_,
                                                              overflows_.data()};
        cuda::launch<Append>(
            dim3(static_cast<unsigned>(cuda::append_blocks(Oss::heads, Oss::kv_heads, rows_))), args, stream);
    }

    /// From the queries, keys and values that were appended. A layer that slides holds all of them here.
    void check_head(Check& check, int row, int head) const {
        const int kv_head = head / (Oss::heads / Oss::kv_heads);
        const std::size_t head_size = size(capacity_, Oss::head_dim);
        const HeadBits query = read(queries_.data() + size(row, mixed_width) + size(head, Oss::head_dim),
                                    Oss::head_dim),
                       keys = read(cache_.data() + size(kv_head) * head_size, head_size),
                       values = read(cache_.data() + size(Oss::kv_heads + kv_head) * head_size, head_size);
        const auto expected = attend(
            half_head(query.data()), static_cast<double>(sinks_.host[size(head)]), row + 1 - seen(row), row,
            [&](int j) { return half_head(keys.data() + size(j, Oss::head_dim)); },
            [&](int j) { return half_head(values.data() + size(j, Oss::head_dim)); });
        const HeadBits found =
            read(out_.data() + size(row, mixed_width) + size(head, Oss::head_dim), Oss::head_dim);
        for (int i = 0; i < Oss::head_dim; ++i)
            check.see(static_cast<double>(format::half_to_float(found[size(i)])), expected[size(i)].value,
                      2e-3 * expected[size(i)].magnitude + 0x1p-20,
                      "row " + std::to_string(row) + ", head " + std::to_string(head) + ", element " +
                          std::to_string(i));
    }

    Bench& bench_;
    int rows_, capacity_;
    cuda::LayerPlace place_;
    SinkWeights sinks_;
    cuda::DeviceBuffer<float> product_;
    Rotations rotations_;
    cuda::DeviceBuffer<unsigned short> queries_, cache_, out_;
    cuda::DeviceBuffer<int> overflows_;
};

}  // namespace

void bench_prefill_attention(Bench& bench) {
    for (const int rows : {2048, 8192})
        bench.measure("prefill: append keys", std::to_string(rows) + " rows",
                      [&] { return PrefillAttentionBlock(bench, rows, 0).run_append(); });
    for (const int window : {0, Oss::window})
        for (const int rows : {2048, 8192})
            bench.measure(window > 0 ? "prefill: attention, window 128" : "prefill: attention",
                          std::to_string(rows) + " rows",
                          [&] { return PrefillAttentionBlock(bench, rows, window).run(); });
}

}  // namespace gg::bench
