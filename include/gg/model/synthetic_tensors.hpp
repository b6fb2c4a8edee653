// The tensors of a model of random weights: names and shapes as the family's layer type gives them, element
// types as the usual files have them, and the deviation that keeps activations sane: gain / sqrt(inputs), so
// that a normalised input gives outputs of size `gain` and the residual stream grows as the square root of
// the depth.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "gg/model/families.hpp"
#include "gg/model/quantize.hpp"
#include "gg/model/weights.hpp"

namespace gg {

/// What to make, beside the family.
struct SyntheticModel {
    std::string name;  ///< general.name
    Dims dims;
    bool tied = false;                    ///< the head is the embedding (unless the family needs a head)
    DType dense = DType::q8_0;            ///< of matrices: F32, F16, BF16, Q8_0 or MXFP4
    DType experts = DType::mxfp4;         ///< of expert matrices: likewise
    std::string pre_tokenizer = "gpt-2";  ///< of the made-up vocabulary
};

/// One tensor to make.
struct SyntheticTensor {
    TensorView view;  ///< without data
    double mean = 0;
    double deviation = 0;
    unsigned number = 0;  ///< place in the file
};

namespace detail {

/// The visitor of model/weights.hpp that lists tensors instead of binding them.
class SyntheticTensors {
  public:
    struct Nothing {};
    struct Store {
        using Vector = Nothing;
        using Matrix = Nothing;
        using Matrices = Nothing;
    };

    explicit SyntheticTensors(const SyntheticModel& model) : model_(model) {}

    void begin_layer(int i) { prefix_ = "blk." + std::to_string(i) + "."; }
    void end_layers() { prefix_.clear(); }
    bool has(const char*, const char*) const { return !model_.tied; }

    void vector(const char* stem, const char* suffix, Nothing&, int n) {
        add(stem, suffix, DType::f32, {n}, false);
    }
    void vector_part(const char* stem, const char* suffix, Nothing& handle, int total, int, int) {
        vector(stem, suffix, handle, total);
    }
    void vectors(const char* stem, const char* suffix, Nothing&, int n, int count) {
        add(stem, suffix, DType::f32, {n, count}, false);
    }
    void matrix(const char* stem, const char* suffix, Nothing&, int columns, int rows) {
        add(stem, suffix, model_.dense, {columns, rows}, true);
    }
    void matrix_rows(const char* stem, const char* suffix, Nothing& handle, int columns, int total, int,
                     int) {
        matrix(stem, suffix, handle, columns, total);
    }
    void matrices(const char* stem, const char* suffix, Nothing&, int columns, int rows, int count) {
        add(stem, suffix, model_.experts, {columns, rows, count}, true);
    }

    std::vector<SyntheticTensor> take() { return std::move(tensors_); }

  private:
    // Parts of one tensor are named one after the other.
    void add(const std::string& stem, const std::string& suffix, DType type, std::initializer_list<int> shape,
             bool is_matrix) {
        SyntheticTensor tensor;
        tensor.view.name = prefix_ + stem + "." + suffix;
        if (!tensors_.empty() && tensors_.back().view.name == tensor.view.name) return;
        for (const int n : shape)
            tensor.view.shape[static_cast<std::size_t>(tensor.view.dimensions++)] =
                static_cast<std::uint64_t>(n);
        // Positions and the router stay floats, as in quantization.
        if (is_matrix && is_quantizable(tensor.view))
            tensor.view.type = fitting_type(type, tensor.view.row_length());
        tensor.number = static_cast<unsigned>(tensors_.size());
        if (is_matrix)
            tensor.deviation = gain(stem) / std::sqrt(shape.begin()[0]);
        else
            set_vector_size(tensor, stem, suffix);
        tensors_.push_back(std::move(tensor));
    }

    double gain(std::string_view stem) const {
        if (stem == "token_embd") return model_.tied ? 2.0 : std::sqrt(model_.dims.hidden);
        if (stem == "position_embd") return 0.3 * std::sqrt(model_.dims.hidden);
        if (stem == "ffn_gate" || stem == "ffn_up") return 1.5;
        if (stem == "ffn_down_exps") return 0.5;
        const bool is_two = stem == "output" || stem == "ffn_gate_inp" || stem.starts_with("ffn_");
        return is_two && stem != "ffn_down" ? 2.0 : 1.0;
    }

    static void set_vector_size(SyntheticTensor& tensor, std::string_view stem, std::string_view suffix) {
        const bool is_gain = suffix == "weight" && stem.ends_with("_norm");
        const bool is_sink = stem == "attn_sinks";  // weighs about as much as a window of keys
        tensor.mean = is_gain ? 1.0 : is_sink ? 4.0 : 0.0;
        tensor.deviation = is_gain ? 0.25 : is_sink ? 1.0 : 0.3;
    }

    const SyntheticModel& model_;
    std::string prefix_;
    std::vector<SyntheticTensor> tensors_;
};

}  // namespace detail

/// The tensors of a model, in the order of the layer type's walk.
template <class Family>
std::vector<SyntheticTensor> synthetic_tensors(const SyntheticModel& model) {
    detail::SyntheticTensors visitor(model);
    ModelWeights<Family, detail::SyntheticTensors::Store> weights;
    visit_weights<Family>(visitor, weights, model.dims);
    return visitor.take();
}

}  // namespace gg
