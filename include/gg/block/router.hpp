// TopKRouter: the k largest of a row of E logits, in descending order, ties to the lower index, and the
// softmax over those k alone: weight_i = exp(l_i - l_0) / sum_j exp(l_j - l_0).
//
// Sums run in rank order, so the weights do not depend on anything but the logits. k E comparisons.
#pragma once

#include "gg/core/math.hpp"

namespace gg {

struct TopKRouter {
    /// Picks `k` of `count` logits: `expert` [k] and `weight` [k]. A NaN is never picked before a number.
    GG_HD static void select(const float* logits, int count, int k, int* expert, float* weight) {
        for (int rank = 0; rank < k; ++rank) {
            int best = -1;
            for (int e = 0; e < count; ++e) {
                bool taken = false;
                for (int r = 0; r < rank; ++r) taken = taken || expert[r] == e;
                const bool number_for_nan =
                    best >= 0 && logits[best] != logits[best] && logits[e] == logits[e];
                if (!taken && (best < 0 || logits[e] > logits[best] || number_for_nan)) best = e;
            }
            expert[rank] = best;
        }
        float sum = 0.0f;
        for (int rank = 0; rank < k; ++rank) {
            weight[rank] = exp(logits[expert[rank]] - logits[expert[0]]);
            sum += weight[rank];
        }
        for (int rank = 0; rank < k; ++rank) weight[rank] /= sum;
    }
};

}  // namespace gg
