// The shapes of gpt-oss-20b, and the chip that stages are planned for: 132 multiprocessors with 228 KiB of
// shared memory, an H100 or H200.
#pragma once

#include "gg/cuda/plan.hpp"
#include "gg/cuda/rows.hpp"
#include "gg/layer/gpt_oss.hpp"

namespace gg::bench {

struct Oss {
    static constexpr cuda::Chip chip{132, 115712, 231424};
    static constexpr int multiprocessors = chip.multiprocessors;
    static constexpr int hidden = 2880, heads = 64, kv_heads = 8, head_dim = 64;
    static constexpr int feed_forward = 2880, expert_feed_forward = 2880;
    static constexpr int experts = 32, experts_used = 4, vocabulary = 201088;
    static constexpr int window = 128;
    static constexpr int prefill_chunk = 8192;  ///< the most rows of one launch here
    static constexpr float norm_epsilon = 1e-5f;
};

using OssNorm = RmsNorm;
using OssAttention = PartOf<PartOf<GptOssLayer, 0>, 0>;
using OssExperts = PartOf<PartOf<GptOssLayer, 1>, 0>;

/// q, k and v stacked.
inline constexpr cuda::QkvColumns oss_qkv = cuda::qkv_columns(Oss::heads, Oss::kv_heads, Oss::head_dim);

}  // namespace gg::bench
