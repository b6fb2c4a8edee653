// The fused stages of decoding with dense matrices: norm and q, k, v; output and residual; norm and head.
// Each alone, its weights taking turns over several layers. Checked on some elements of the first layer
// against double, from the file's rows and the same inputs.
#pragma once

#include "decode_inputs.cuh"

namespace gg::bench {

template <int rows>
class DenseStages {
    using In = DecodeInputs<rows>;
    using Stages = DecodeStages<rows>;
    using Qkv = typename Stages::Qkv;
    using Output = typename Stages::Output;
    using Head = typename Stages::Head;
    static constexpr int hidden = Oss::hidden, mixed_width = Oss::heads * Oss::head_dim;
    static constexpr int layers = 8;    ///< that weights take turns over
    static constexpr int checked = 24;  ///< elements of a row

  public:
    explicit DenseStages(const Bench& bench) : bench_(bench) {}

    Result qkv() const {
        constexpr int width = oss_qkv.width;
        const Matrices w({DType::q8_0, layers, 1, width, hidden}, 10);
        const auto out = buffer<float>(size(Qkv::plan.slots, rows, width));
        const auto call = [&](cudaStream_t stream, int i) {
            cuda::launch<Qkv>({in_.stream_of_x(), in_.norm(), w.tiles(i % layers), in_.bias.data(),
                               out.data(), rows, in_.overflows.data()},
                              stream, {.early = i > 0});
        };
        call(nullptr, 0);
        const auto found = In::sum_slots(read(out.data(), out.size()), Qkv::plan.slots, width);
        Check check("double");
        for (int n = 0; n < rows; ++n) {
            const std::vector<double> y = in_.normed(n);
            for (int k = 0; k < checked; ++k) {
                const int i = sample(k, checked, width);
                const Dot sum = dot(w.row(0, 0, 0, i), y.data());
                check.see(found[size(n * width + i)], sum.value + static_cast<double>(in_.host_bias[size(i)]),
                          In::normed_bound(sum), element("q, k, v", n, i));
            }
        }
        return {time_calls(bench_, layers, call), static_cast<double>(w.copy_bytes()), 0, check.text(), {}};
    }

    Result output() const {
        const Matrices w({DType::q8_0, layers, 1, hidden, mixed_width}, 11);
        const auto mixed = random_sixteen(size(rows, mixed_width), half_ones, 12);
        const auto out = buffer<float>(size(Output::plan.slots, rows, hidden)),
                   sums = buffer<float>(size(Output::plan.blocks, rows, Oss::experts));
        const auto call = [&](cudaStream_t stream, int i) {
            cuda::launch<Output>({in_.stream_of_x(), mixed.data(), w.tiles(i % layers), in_.bias.data(),
                                  in_.router.data(), out.data(), sums.data(), rows},
                                 stream, {.early = i > 0});
        };
        call(nullptr, 0);
        const auto found = In::sum_slots(read(out.data(), out.size()), Output::plan.slots, hidden);
        const auto logits = In::sum_slots(read(sums.data(), sums.size()), Output::plan.blocks, Oss::experts);
        const auto operand = read(mixed.data(), mixed.size());
        const auto router = read(in_.router.data(), in_.router.size());
        Check check("double");
        for (int n = 0; n < rows; ++n) {
            std::vector<float> x(mixed_width);
            for (int i = 0; i < mixed_width; ++i)
                x[size(i)] = format::half_to_float(operand[size(n * mixed_width + i)]);
            for (int k = 0; k < checked; ++k) {
                const int i = sample(k, checked, hidden);
                const Dot sum = dot(w.row(0, 0, 0, i), x.data());
                const double once =
                    in_.host_x[size(n * hidden + i)] + static_cast<double>(in_.host_bias[size(i)]);
                check.see(found[size(n * hidden + i)], sum.value + once, product_bound(sum, mixed_width),
                          element("residual", n, i));
            }
            for (int e = 0; e < Oss::experts; ++e) {
                Dot sum;
                for (int i = 0; i < hidden; ++i) {
                    const double term =
                        found[size(n * hidden + i)] * static_cast<double>(router[size(i * Oss::experts + e)]);
                    sum.value += term;
                    sum.magnitude += std::fabs(term);
                }
                check.see(logits[size(n * Oss::experts + e)], sum.value, 1e-5 * sum.magnitude,
                          element("router's sums", n, e));
            }
        }
        return {time_calls(bench_, layers, call),
                static_cast<double>(w.copy_bytes() + in_.router.bytes()),
                0,
                check.text(),
                {}};
    }

    Result head() const {
        const Matrices w({DType::q8_0, 1, 1, Oss::vocabulary, hidden}, 30);
        const auto logits = buffer<float>(size(rows, Oss::vocabulary));
        std::vector<cuda::Row> list(rows);
        for (int n = 0; n < rows; ++n) list[size(n)].logits = logits.data() + size(n, Oss::vocabulary);
        const auto row_list = buffer(list);
        const auto call = [&](cudaStream_t stream, int i) {
            cuda::HeadArgs<OssNorm> args{};
            args.x = in_.stream_of_x();
            args.norm = in_.norm();
            args.tiles = w.tiles(0);
            args.rows = row_list.data();
            args.used_rows = rows;
            args.overflows = in_.overflows.data();
            cuda::launch<Head>(args, stream, {.early = i > 0});
        };
        call(nullptr, 0);
        const auto found = read(logits.data(), logits.size());
        Check check("double");
        for (int n = 0; n < rows; ++n) {
            const std::vector<double> y = in_.normed(n);
            for (int k = 0; k < checked; ++k) {
                const int i = sample(k, checked, Oss::vocabulary);
                const Dot sum = dot(w.row(0, 0, 0, i), y.data());
                check.see(static_cast<double>(found[size(n) * Oss::vocabulary + size(i)]), sum.value,
                          In::normed_bound(sum), element("logit", n, i));
            }
        }
        return {time_calls(bench_, 1, call), static_cast<double>(w.copy_bytes()), 0, check.text(), {}};
    }

  private:
    const Bench& bench_;
    In in_;
};

}  // namespace gg::bench
