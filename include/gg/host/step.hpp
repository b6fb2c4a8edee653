// What a block needs to run on the host: a piece of a sequence, the layer it is in, and the means to compute.
// Run<Block> is how the host runs a block; each block has a specialisation, and user code may add its own.
#pragma once

#include <cmath>

#include "gg/host/kernels.hpp"
#include "gg/host/kv_cache.hpp"
#include "gg/host/store.hpp"
#include "gg/host/thread_pool.hpp"
#include "gg/host/workspace.hpp"

namespace gg::host {

/// cos and sin of a rotary policy for consecutive positions, [rows][head_dim / 2] each. Every layer of a step
/// asks for the same ones.
class RotaryTable {
  public:
    /// Tabulates unless it holds just that.
    template <class Policy>
    void fill(const Dims& dims, long position, int rows) {
        static constexpr char tag = 0;  // its address stands for the policy
        if (policy_ == &tag && position_ == position && rows_ == rows) return;
        policy_ = &tag;
        position_ = position;
        rows_ = rows;
        half_ = static_cast<std::size_t>(dims.head_dim / 2);
        cosines_.resize(static_cast<std::size_t>(rows) * half_);
        sines_.resize(cosines_.size());
        const double magnitude = Policy::magnitude(dims);
        for (std::size_t i = 0; i < half_; ++i) {
            const double frequency = Policy::inverse_frequency(dims, static_cast<int>(i));
            for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
                const double angle = static_cast<double>(position + static_cast<long>(r)) * frequency;
                cosines_[r * half_ + i] = static_cast<float>(std::cos(angle) * magnitude);
                sines_[r * half_ + i] = static_cast<float>(std::sin(angle) * magnitude);
            }
        }
    }

    const float* cosines(int row) const { return cosines_.data() + static_cast<std::size_t>(row) * half_; }
    const float* sines(int row) const { return sines_.data() + static_cast<std::size_t>(row) * half_; }
    std::uint64_t bytes() const { return sizeof(float) * (cosines_.capacity() + sines_.capacity()); }

  private:
    const void* policy_ = nullptr;
    long position_ = 0;
    int rows_ = 0;
    std::size_t half_ = 0;
    std::vector<float> cosines_, sines_;
};

/// One piece of a sequence in one layer.
struct Step {
    const Dims& dims;
    ThreadPool& pool;
    InstructionSet set;
    Workspace& workspace;
    RotaryTable& rotary;
    KvCache* cache;  ///< of this layer
    int layer;
    long position;  ///< of the first row
};

/// How the host runs a block. Branches of a residual have
///   static void forward(Step&, const Block::Weights<HostStore>&, Rows in, Rows out);
template <class Block>
struct Run;

/// Calls f(row) for each row, in parallel if there are several.
template <class F>
void for_each_row(Step& step, int rows, F&& f) {
    step.pool.run(rows, [&](long row, int) { f(static_cast<int>(row)); });
}

}  // namespace gg::host
