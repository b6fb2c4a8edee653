// The family of parallel_composition.hpp: its architecture in files, its norms' names, its dimensions.
#pragma once

#include "cuda/parallel_composition.hpp"
#include "gg/model/read_dims.hpp"

namespace parallel {

/// The family for any policies, so that tests can compose it wrongly too.
template <class... Policies>
struct Family : Composition<Policies...> {
    static constexpr const char* architecture = "parallel-qknorm";
    static constexpr const char* layer_norms[1] = {"attn_norm"};

    static gg::Dims read_dims(const gg::gguf::File& file) {
        const gg::Hyperparameters h(file, architecture);
        gg::Dims dims = gg::read_common_dims(h, "attention.layer_norm_rms_epsilon");
        dims.feed_forward = h.positive("feed_forward_length");
        gg::read_rope_dims(h, dims, 10000.0);
        return dims;
    }
};

struct QkNormFamily : Family<QkNorm, gg::HalfSplitRope> {
    /// The composition as a compiler at run time finds it.
    static constexpr const char* composition_header = "cuda/parallel_composition.hpp";
    static constexpr const char* composition_type = "parallel::QkNormComposition";
};

}  // namespace parallel
