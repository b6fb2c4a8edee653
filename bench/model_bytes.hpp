// How many bytes of a model a decoded token makes a machine read, from the file's own tensors:
//
//   weights   every tensor in the file's format, but one row of each embedding (a tied head is read whole),
//             and of expert tensors the part that is chosen
//   cache     keys and values of all earlier positions, FP16, in sliding layers those in the window
//
// A step of several sequences reads a weight once for all. Of E experts, k a token, n sequences choose
// E (1 - (1 - k / E)^n) different ones on average, if they choose evenly and independently. Activations and
// what a device pads or converts are not counted.
#pragma once

#include <algorithm>
#include <cmath>
#include <string_view>

#include "gg/gguf/file.hpp"
#include "gg/model/dims.hpp"

namespace gg::bench {

class ModelBytes {
  public:
    ModelBytes(const gguf::File& file, const Dims& dims) : dims_(dims) {
        const bool tied = file.tensor("output.weight") == nullptr;
        for (const TensorView& tensor : file.tensors()) {
            const auto bytes = static_cast<double>(tensor.bytes());
            const std::string_view name = tensor.name;
            const bool is_tokens = name == "token_embd.weight";
            if (is_tokens || name == "position_embd.weight") rows_ += static_cast<double>(tensor.row_bytes());
            if (name.find("_exps.") != name.npos)
                experts_ += bytes;
            else if (is_tokens ? tied : name != "position_embd.weight")
                shared_ += bytes;
        }
    }

    /// Different experts of a layer that a step of `sequences` tokens needs, of all: from 0 to 1.
    double expert_share(int sequences) const {
        if (dims_.experts == 0) return 0;
        return 1 - std::pow(1 - static_cast<double>(dims_.experts_used) / dims_.experts, sequences);
    }
    /// Weights that a step of that many sequences reads.
    double weights(int sequences) const {
        return shared_ + experts_ * expert_share(sequences) + rows_ * sequences;
    }
    /// Keys and values that a token reads whose sequence has `depth` earlier ones.
    double cache(double depth) const {
        double positions = 0;
        for (int layer = 0; layer < dims_.layers; ++layer)
            positions += dims_.slides(layer) ? std::min<double>(depth, dims_.window) : depth;
        return positions * 2 * dims_.kv_heads * dims_.head_dim * 2;
    }
    /// Both, for each token of a step.
    double token(int sequences, double depth) const { return weights(sequences) / sequences + cache(depth); }

  private:
    Dims dims_;
    double shared_ = 0, experts_ = 0, rows_ = 0;
};

}  // namespace gg::bench
