// The dimensions of a model that are known only at run time. Blocks read them by member name alone, so a type
// with the same names as static constexpr members serves them equally.
#pragma once

#include <cstddef>
#include <vector>

namespace gg {

struct Dims {
    int layers = 0;
    int hidden = 0;               ///< width of the residual stream
    int heads = 0;                ///< query heads
    int kv_heads = 0;             ///< key and value heads; divides heads
    int head_dim = 0;             ///< width of a head; heads * head_dim need not be hidden
    int feed_forward = 0;         ///< width of the dense MLP
    int experts = 0;              ///< 0 for a dense model
    int experts_used = 0;         ///< experts per token
    int expert_feed_forward = 0;  ///< width of one expert
    int vocabulary = 0;           ///< rows of the embedding and of the head
    int context = 0;              ///< tokens that the model was made for
    int window = 0;               ///< keys that a sliding layer sees, the row's own included; 0: none slides
    std::vector<bool> sliding;    ///< which layers slide; [layers] or empty

    float norm_epsilon = 0.0f;
    double rope_base = 0.0;
    double yarn_factor = 1.0;
    double yarn_original_context = 0.0;
    double yarn_beta_fast = 32.0;
    double yarn_beta_slow = 1.0;

    /// Whether the keys of this layer slide out of a window.
    bool slides(int layer) const {
        return window > 0 && !sliding.empty() && sliding[static_cast<std::size_t>(layer)];
    }
};

}  // namespace gg
