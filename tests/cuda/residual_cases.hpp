// What tests of stages that read or write the residual stream share: random streams with a norm, and the
// check of written partial sums and of a router's sums.
#pragma once

#include "cuda/device.hpp"
#include "cuda/stage_cases.hpp"
#include "gg/cuda/stage_args.hpp"

namespace cuda_test {

/// Shared memory that a block of a stage may take.
template <class Dims, int rows>
constexpr int shared_budget() {
    return rows == 1 ? Dims::chip.shared_half : Dims::chip.shared_whole;
}

/// A residual stream, NaN in the rows that are not used, and a norm.
template <class Norm>
struct NormCase {
    std::vector<float> parts, gain, bias;
    DeviceArray<float> device_parts, device_gain, device_bias;
    int slots, rows, hidden;

    NormCase(int slots_, int rows_, int hidden_, int used_rows, Random& random)
        : parts(make_parts(slots_, rows_, hidden_, used_rows, random)),
          gain(random.floats(static_cast<std::size_t>(hidden_), 0.5f, 1.5f)),
          bias(random.floats(static_cast<std::size_t>(hidden_), -0.5f, 0.5f)),
          device_parts(parts),
          device_gain(gain),
          device_bias(bias),
          slots(slots_),
          rows(rows_),
          hidden(hidden_) {}

    static std::vector<float> make_parts(int slots, int rows, int hidden, int used_rows, Random& random) {
        std::vector<float> parts;
        for (int q = 0; q < slots; ++q)
            for (int n = 0; n < rows; ++n)
                for (int i = 0; i < hidden; ++i)
                    parts.push_back(n < used_rows ? random.between(-2.0f, 2.5f) : nan_float);
        return parts;
    }
    gg::cuda::ResidualStream stream() const { return {device_parts.data(), slots}; }
    auto weights() const {
        typename Norm::template Weights<gg::cuda::CudaStore> w{};
        w.gain.data = device_gain.data();
        if constexpr (Norm::centred) w.bias.data = device_bias.data();
        return w;
    }
    BoundedRow residual(int row) const { return residual_row(parts, slots, rows, hidden, row); }
    /// As operand of so many planes.
    NormedRow normed(int row, int planes) const {
        NormedRow normed = norm_row<Norm>(residual(row), gain, bias, static_cast<double>(1e-5f));
        round_operand(normed.y, planes);
        return normed;
    }
};

/// The residual stream that a stage writes, and the sums of the router that reads it next, if any.
template <class Stage, int hidden, int rows, int experts>
class WrittenResidual {
  public:
    static constexpr int slots = Stage::plan.slots, blocks = Stage::plan.blocks;

    explicit WrittenResidual(Random& random)
        : router_(random.floats(static_cast<std::size_t>(hidden) * (experts > 0 ? experts : 1), -1.0f, 1.0f)),
          device_router_(router_),
          device_out_(std::vector<float>(static_cast<std::size_t>(slots) * rows * hidden, nan_float)),
          device_sums_(
              std::vector<float>(static_cast<std::size_t>(blocks) * rows * experts + 16, nan_float)) {}

    const float* router() const { return experts > 0 ? device_router_.data() : nullptr; }
    float* out() const { return device_out_.data(); }
    float* sums() const { return device_sums_.data(); }

    void read() {
        out_ = device_out_.read();
        sums_ = device_sums_.read();
    }

    void check_row(Misses& misses, int n, const BoundedRow& expected) const {
        for (int i = 0; i < hidden; ++i)
            misses.compare(slot_sum(out_, slots, rows, hidden, n, i), expected[static_cast<std::size_t>(i)],
                           at(n, i));
        if constexpr (experts > 0) check_router(misses, n, expected);
    }

    /// Nothing was written for rows from `used_rows` on, nor beyond the sums.
    void check_unused(Misses& misses, int used_rows) const {
        for (int q = 0; q < slots; ++q)
            for (int n = used_rows; n < rows; ++n)
                for (int i = 0; i < hidden; ++i)
                    misses.expect(std::isnan(out_[place(q, n, i)]), "written: " + at(n, i));
        for (int b = 0; b < blocks; ++b)
            for (int n = used_rows; n < rows; ++n)
                for (int e = 0; e < experts; ++e)
                    misses.expect(std::isnan(sums_[sum_place(b, n, e)]), "router sum written: " + at(n, e));
        for (std::size_t i = sum_place(blocks, 0, 0); i < sums_.size(); ++i)
            misses.expect(std::isnan(sums_[i]), "beyond the router's sums");
    }

  private:
    static std::size_t place(int slot, int n, int i) {
        return (static_cast<std::size_t>(slot) * rows + n) * hidden + i;
    }
    static std::size_t sum_place(int block, int n, int e) {
        return (static_cast<std::size_t>(block) * rows + n) * experts + e;
    }

    /// The sums from the slots that the stage itself wrote: a block adds at most round_rows * 16 products,
    /// then 16 parts. And the logit without bias, scale * sums, from the residual's double reference.
    void check_router(Misses& misses, int n, const BoundedRow& expected) const {
        const std::vector<float> ones(hidden, 1.0f);
        const NormedRow normed = norm_row<gg::RmsNorm>(expected, ones, ones, static_cast<double>(1e-5f));
        for (int e = 0; e < experts; ++e) {
            double found = 0;
            for (int b = 0; b < blocks; ++b) found += static_cast<double>(sums_[sum_place(b, n, e)]);
            Bounded sum, logit;
            for (int i = 0; i < hidden; ++i) {
                const double w = static_cast<double>(router_[static_cast<std::size_t>(i) * experts + e]);
                for (int q = 0; q < slots; ++q) {
                    const double term = static_cast<double>(out_[place(q, n, i)]) * w;
                    sum.value += term;
                    sum.error += (Stage::plan.round_rows * 16 + 17) * unit * std::fabs(term);
                }
                logit.value += normed.y[i].value * w;
                logit.error += normed.scale.value * std::fabs(w) * expected[i].error;
            }
            logit.error += normed.scale.value * sum.error;
            misses.compare(found, sum, "router sum, " + at(n, e));
            misses.compare(normed.scale.value * found, logit, "logit, " + at(n, e));
        }
    }

    std::vector<float> router_, out_, sums_;
    DeviceArray<float> device_router_, device_out_, device_sums_;
};

}  // namespace cuda_test
