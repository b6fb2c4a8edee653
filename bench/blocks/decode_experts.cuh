// The fused stages of decoding with experts: norm, routing, up products, activation; down products, residual.
// Launches take turns over eight routings, so that the experts of one do not lie in the second-level cache
// from the one before. Checked on some elements of the first routing against double, from the file's rows and
// the same inputs; the down stage from the activations that the up stage left.
#pragma once

#include <cstring>

#include "decode_inputs.cuh"

namespace gg::bench {

template <int rows>
class ExpertStages {
    using In = DecodeInputs<rows>;
    using Stages = DecodeStages<rows>;
    using Output = typename Stages::Output;
    using Up = typename Stages::Up;
    using Down = typename Stages::Down;
    using Chosen = typename Stages::Chosen;
    static constexpr int hidden = Oss::hidden, used = Oss::experts_used;
    static constexpr int layers = 8;    ///< routings
    static constexpr int checked = 24;  ///< elements of a row

  public:
    explicit ExpertStages(const Bench& bench) : bench_(bench) {
        for (int turn = 0; turn < layers; ++turn) enqueue_up(nullptr, turn, false);
    }

    Result up() const {
        const Chosen found = choice();
        const auto h = read(experts_.h.data(), Experts::operands);
        Check check("double");
        for (int n = 0; n < rows; ++n) {
            const std::vector<double> y = in_.normed(n), weights = expert_weights(n);
            for (int rank = 0; rank < used; ++rank) {
                const int e = experts_.chosen[0][n][rank];
                check.see(found.expert[n][rank], e, 0, element("expert", n, rank));
                check.see(static_cast<double>(found.weight[n][rank]), weights[size(rank)], 1e-4,
                          element("weight", n, rank));
                for (int k = 0; k < checked / 4; ++k) {
                    const int f = sample(k, checked / 4, hidden);
                    const Dot gate = dot(experts_.up.row(0, e, 0, f), y.data()),
                              up = dot(experts_.up.row(0, e, 1, f), y.data());
                    const double bias = static_cast<double>(in_.host_bias[size(e * hidden + f)]);
                    const double up_bias =
                        static_cast<double>(in_.host_bias[size((Oss::experts + e) * hidden + f)]);
                    const double g = std::min(gate.value + bias, 7.0),
                                 u = std::clamp(up.value + up_bias, -7.0, 7.0);
                    const double s = g / (1 + std::exp(-static_cast<double>(ClampedSwiglu::alpha) * g));
                    const double value = s * (u + 1) * weights[size(rank)];
                    const double gate_error = In::normed_bound(gate), up_error = In::normed_bound(up);
                    const double bound =
                        weights[size(rank)] *
                            (1.1 * gate_error * (std::fabs(u + 1) + up_error) + std::fabs(s) * up_error) +
                        1e-3 * std::fabs(value) + 1e-6;
                    check.see(
                        static_cast<double>(format::half_to_float(h[size((n * used + rank) * hidden + f)])),
                        value, bound, element("activation", n * used + rank, f));
                }
            }
        }
        const auto call = [&](cudaStream_t stream, int i) { enqueue_up(stream, i, i > 0); };
        return {time_calls(bench_, layers, call), expert_bytes(experts_.up), 0, check.text(), {}};
    }

    Result down() const {
        const auto out = buffer<float>(size(Down::plan.slots, rows, hidden));
        const auto call = [&](cudaStream_t stream, int i) {
            const std::size_t turn = size(i % layers);
            cuda::DownArgs args{};
            args.x = in_.stream_of_x();
            args.h = experts_.h.data() + turn * Experts::operands;
            args.tiles = experts_.down.tiles(0);
            args.expert_bytes = experts_.down.matrix_bytes();
            args.bias = in_.bias.data();
            args.choice = experts_.choices.data() + turn * sizeof(Chosen);
            args.out = out.data();
            args.used_rows = rows;
            cuda::launch<Down>(args, stream, {.early = i > 0});
        };
        call(nullptr, 0);
        const auto found = In::sum_slots(read(out.data(), out.size()), Down::plan.slots, hidden);
        const auto h = read(experts_.h.data(), Experts::operands);
        const Chosen chosen = choice();
        Check check("double");
        for (int n = 0; n < rows; ++n)
            for (int k = 0; k < checked; ++k) {
                const int i = sample(k, checked, hidden);
                double expected = in_.host_x[size(n * hidden + i)], bound = 1e-5;
                for (int rank = 0; rank < used; ++rank) {
                    const int e = chosen.expert[n][rank];
                    std::vector<float> x(hidden);
                    for (int c = 0; c < hidden; ++c)
                        x[size(c)] = format::half_to_float(h[size((n * used + rank) * hidden + c)]);
                    const Dot sum = dot(experts_.down.row(0, e, 0, i), x.data());
                    expected += sum.value + static_cast<double>(chosen.weight[n][rank]) *
                                                static_cast<double>(in_.host_bias[size(e * hidden + i)]);
                    bound += product_bound(sum, used * hidden);
                }
                check.see(found[size(n * hidden + i)], expected, bound, element("residual", n, i));
            }
        return {time_calls(bench_, layers, call), expert_bytes(experts_.down), 0, check.text(), {}};
    }

  private:
    /// The experts' matrices and, for each turn, sums of the router that make it choose other experts.
    struct Experts {
        Matrices up{{DType::mxfp4, 1, Oss::experts, hidden, hidden, true}, 20};
        Matrices down{{DType::mxfp4, 1, Oss::experts, hidden, hidden}, 21};
        static constexpr std::size_t sums = size(Output::plan.blocks, rows, Oss::experts);
        static constexpr std::size_t operands = size(rows, used, hidden);
        std::vector<float> host_sums = std::vector<float>(layers * sums);
        int chosen[layers][rows][used], listed[layers];  ///< listed: how many experts a turn reads
        cuda::DeviceBuffer<float> router_sums;
        cuda::DeviceBuffer<unsigned char> choices = buffer<unsigned char>(layers * sizeof(Chosen));
        cuda::DeviceBuffer<unsigned short> h = buffer<unsigned short>(layers * operands);

        Experts() {
            for (int turn = 0; turn < layers; ++turn) {
                bool seen[Oss::experts] = {};
                listed[turn] = 0;
                for (int n = 0; n < rows; ++n)
                    for (int rank = 0; rank < used; ++rank) {
                        const int e = expert_of(turn, n, rank);
                        chosen[turn][n][rank] = e;
                        listed[turn] += seen[e] ? 0 : 1;
                        seen[e] = true;
                        // far above the biases of all others
                        for (int b = 0; b < 2; ++b)
                            host_sums[turn * sums + size((b * rows + n) * Oss::experts + e)] =
                                4.4f - 0.6f * static_cast<float>(rank);
                    }
            }
            router_sums = buffer(host_sums);
        }
        /// One row: each expert in one of eight turns. Several: scattered, so that rows share some.
        static int expert_of(int turn, int n, int rank) {
            if (rows == 1) return (turn * used + rank) % Oss::experts;
            const int first = (turn * 37 + n * n * 11 + n * 5) % Oss::experts;
            return (first + rank * (2 * n + 3)) % Oss::experts;
        }
    };

    void enqueue_up(cudaStream_t stream, int i, bool early) const {
        const Experts& e = experts_;
        const std::size_t turn = size(i % layers);
        cuda::UpArgs<OssNorm> up{};
        up.x = in_.stream_of_x();
        up.norm = in_.norm();
        up.tiles = e.up.tiles(0);
        up.expert_bytes = e.up.matrix_bytes();
        up.gate_bias = in_.bias.data();
        up.up_bias = in_.bias.data() + size(Oss::experts, hidden);
        up.h = e.h.data() + turn * Experts::operands;
        up.router_sums = e.router_sums.data() + turn * Experts::sums;
        up.router_blocks = Output::plan.blocks;
        up.router_bias = in_.bias.data();
        up.choice = e.choices.data() + turn * sizeof(Chosen);
        up.used_rows = rows;
        up.overflows = in_.overflows.data();
        cuda::launch<Up>(up, stream, {.early = early});
    }
    /// Bytes of the experts that a turn reads, on average.
    double expert_bytes(const Matrices& w) const {
        double listed = 0;
        for (const int count : experts_.listed) listed += count;
        return listed / layers * static_cast<double>(w.matrix_bytes());
    }
    /// The weights of a row's experts in the order of ranks.
    std::vector<double> expert_weights(int n) const {
        std::vector<double> w(used);
        double sum = 0, logits[used];
        for (int rank = 0; rank < used; ++rank) {
            const int e = experts_.chosen[0][n][rank];
            logits[rank] =
                in_.scale(n) * 2 * (4.4 - 0.6 * rank) + static_cast<double>(in_.host_bias[size(e)]);
        }
        for (int rank = 0; rank < used; ++rank) sum += w[size(rank)] = std::exp(logits[rank] - logits[0]);
        for (double& value : w) value /= sum;
        return w;
    }
    Chosen choice() const {
        Chosen chosen{};
        const auto bytes = read(experts_.choices.data(), sizeof(Chosen));
        std::memcpy(&chosen, bytes.data(), sizeof(Chosen));
        return chosen;
    }

    const Bench& bench_;
    In in_;
    Experts experts_;
};

}  // namespace gg::bench
