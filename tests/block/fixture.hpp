// What running one block on the host takes: random tensors by name, and a machine of threads, scratch memory,
// rotary table and cache.
#pragma once

#include <cmath>
#include <cstddef>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "bounded.hpp"
#include "gg/host/step.hpp"

namespace gg_test {

/// The instruction sets that this processor has.
inline std::vector<gg::host::InstructionSet> instruction_sets() {
    using gg::host::InstructionSet;
    std::vector<InstructionSet> sets = {InstructionSet::portable};
    const InstructionSet best = gg::host::best_instruction_set();
    if (best != InstructionSet::portable) sets.push_back(InstructionSet::avx2);
    if (best == InstructionSet::avx512) sets.push_back(best);
    return sets;
}

/// `count` normal random numbers.
inline std::vector<float> random_floats(std::mt19937& random, std::size_t count, float spread = 1.0f) {
    std::normal_distribution<float> normal(0.0f, spread);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

/// The visitor that gives a block float32 tensors of random numbers and keeps them by name, for the oracle.
/// Matrices keep the size of what they multiply, vectors are of the order of 1.
class RandomTensors {
  public:
    explicit RandomTensors(unsigned seed) : random_(seed) {}

    /// A tensor that the block has named, row after row.
    const std::vector<float>& operator[](const std::string& name) const { return tensors_.at(name); }
    bool has(const std::string& name) const { return tensors_.count(name) > 0; }

    void vector(const char* stem, const char* suffix, gg::host::Vector& out, int n) {
        vector_part(stem, suffix, out, n, 0, n);
    }
    void vectors(const char* stem, const char* suffix, gg::host::Vector& out, int n, int count) {
        vector_part(stem, suffix, out, n * count, 0, n * count);
    }
    void vector_part(const char* stem, const char* suffix, gg::host::Vector& out, int total, int first,
                     int n) {
        const auto& values = take(stem, suffix, total, 0.7f);
        out = {values.data() + first, static_cast<std::size_t>(n)};
    }
    void matrix(const char* stem, const char* suffix, gg::host::Matrix& out, int columns, int rows) {
        matrix_rows(stem, suffix, out, columns, rows, 0, rows);
    }
    void matrix_rows(const char* stem, const char* suffix, gg::host::Matrix& out, int columns, int total,
                     int first, int rows) {
        const auto& values =
            take(stem, suffix, columns * total, 1.2f / std::sqrt(static_cast<float>(columns)));
        out = view(values.data() + first * columns, columns, rows);
    }
    void matrices(const char* stem, const char* suffix, gg::host::Matrices& out, int columns, int rows,
                  int count) {
        const auto& values =
            take(stem, suffix, columns * rows * count, 1.2f / std::sqrt(static_cast<float>(columns)));
        out = {view(values.data(), columns, rows), count};
    }

  private:
    static gg::host::Matrix view(const float* values, int columns, int rows) {
        return {gg::DType::f32, reinterpret_cast<const std::byte*>(values), columns, rows,
                static_cast<std::size_t>(columns) * sizeof(float)};
    }

    const std::vector<float>& take(const char* stem, const char* suffix, int count, float spread) {
        std::vector<float>& values = tensors_[std::string(stem) + "." + suffix];
        if (values.empty()) values = random_floats(random_, static_cast<std::size_t>(count), spread);
        if (values.size() != static_cast<std::size_t>(count))
            throw std::logic_error(std::string(stem) + "." + suffix + " named with two sizes");
        return values;
    }

    std::mt19937 random_;
    std::map<std::string, std::vector<float>> tensors_;
};

/// Everything a block runs with but its weights.
class Machine {
  public:
    Machine(const gg::Dims& dims, gg::host::InstructionSet set, int threads = 1, int context = 16,
            int layer = 0)
        : dims_(dims), set_(set), layer_(layer), pool_(threads), cache_(dims_, layer, context) {}

    gg::host::Step step(long position = 0) {
        return {dims_, pool_, set_, workspace_, rotary_, &cache_, layer_, position};
    }

    /// Runs a block over rows [count][hidden] that begin at a position.
    template <class Block, class Weights>
    std::vector<float> run(const Weights& weights, const std::vector<float>& x, long position = 0) {
        const int count = static_cast<int>(x.size()) / dims_.hidden;
        gg::host::Workspace::Scope scope(workspace_);
        const gg::host::Rows in = workspace_.rows(count, dims_.hidden);
        const gg::host::Rows out = workspace_.rows(count, dims_.hidden);
        for (int i = 0; i < count; ++i) std::copy_n(x.data() + i * dims_.hidden, dims_.hidden, in.row(i));
        gg::host::Step now = step(position);
        gg::host::Run<Block>::forward(now, weights, in, out);
        std::vector<float> y;
        for (int i = 0; i < count; ++i) y.insert(y.end(), out.row(i), out.row(i) + dims_.hidden);
        return y;
    }

  private:
    gg::Dims dims_;
    gg::host::InstructionSet set_;
    int layer_;
    gg::host::ThreadPool pool_;
    gg::host::Workspace workspace_;
    gg::host::RotaryTable rotary_;
    gg::host::KvCache cache_;
};

using Row = std::vector<Bounded>;

/// Row `i` of [count][width] exact numbers.
inline Row row_of(const std::vector<float>& values, std::size_t i, std::size_t width) {
    return Row(values.begin() + static_cast<std::ptrdiff_t>(i * width),
               values.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
}

/// Oracle of one product: W x + b for rows [first, first + rows) of a matrix and its bias, if that is not
/// null.
inline Row linear(const std::vector<float>& weight, const std::vector<float>* bias, const Row& x,
                  std::size_t first, std::size_t rows) {
    Row y;
    std::vector<Bounded> terms(x.size());
    for (std::size_t r = first; r < first + rows; ++r) {
        for (std::size_t k = 0; k < x.size(); ++k) terms[k] = x[k] * Bounded(weight[r * x.size() + k]);
        y.push_back(sum(terms, lane_additions(x.size())));
        if (bias) y.back() = y.back() + Bounded((*bias)[r]);
    }
    return y;
}

/// The same for a whole tensor of a name, with its bias if there is one.
inline Row linear(const RandomTensors& tensors, const std::string& stem, const Row& x) {
    const std::vector<float>& weight = tensors[stem + ".weight"];
    return linear(weight, tensors.has(stem + ".bias") ? &tensors[stem + ".bias"] : nullptr, x, 0,
                  weight.size() / x.size());
}

/// Oracle of one row of RmsNorm, or with a bias of LayerNorm.
inline Row normalised(const Row& x, const std::vector<float>& gain, const std::vector<float>* bias,
                      float epsilon) {
    const Bounded n(static_cast<double>(x.size()));
    const Bounded mean = bias ? sum(x, lane_additions(x.size())) / n : Bounded(0.0);
    Row squares, y;
    for (const Bounded& v : x) squares.push_back((v - mean) * (v - mean));
    const Bounded scale = Bounded(1.0) / sqrt(sum(squares, lane_additions(x.size())) / n + Bounded(epsilon));
    for (std::size_t i = 0; i < x.size(); ++i) {
        y.push_back((x[i] - mean) * scale * Bounded(gain[i]));
        if (bias) y.back() = y.back() + Bounded((*bias)[i]);
    }
    return y;
}

}  // namespace gg_test
