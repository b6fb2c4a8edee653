// What the sampler's stages do with one id, and how a block loads its slice of a row. Written for the Block
// of gg/cuda/sampler_selection.hpp. Includes nothing from the system.
#pragma once

#include "gg/core/device.hpp"
#include "gg/core/math.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/cuda/sampler_selection.hpp"
#include "gg/text/logit.hpp"
#include "gg/text/random.hpp"

namespace gg::cuda {

/// How a row's id is found.
enum class SamplerMode {
    greedy,     ///< the first id
    whole,      ///< neither top-k nor top-p
    threshold,  ///< top-k keeps so few ids that the first ids of the slices tell where it ends at the latest
    bins        ///< top-p alone, or a large top-k: by bins of logits
};

/// The mode of a row: a function of its settings, so no stage has to tell the next.
GG_HD inline SamplerMode sampler_mode(const SamplerSettings& settings, int vocabulary) {
    if (settings.temperature == 0.0F) return SamplerMode::greedy;
    const int slices = sampler_slices(vocabulary);
    const int firsts = slices < sampler_short_list ? slices : sampler_short_list;
    // Few ids are beyond the top_k-th of the slices' first ids, unless nearly all slices have to be counted.
    if (settings.top_k > 0 && settings.top_k <= firsts - firsts / 4) return SamplerMode::threshold;
    const bool cut = settings.top_p < 1.0F || (settings.top_k > 0 && settings.top_k < vocabulary);
    return cut ? SamplerMode::bins : SamplerMode::whole;
}

/// The upper half of a logit's order_key; a NaN comes before all. Never 0.
GG_HD inline unsigned sampler_order(float logit) {
    return logit != logit ? 0xFFFFFFFFU : static_cast<unsigned>(text::order_key(logit, 0) >> 32);
}

/// 0 if the first key of a row is that of an id which can be drawn, else the failure.
GG_HD inline int sampler_status(SamplerKey first) {
    if (static_cast<unsigned>(first >> 32) == 0xFFFFFFFFU)
        return sampler_nan - static_cast<int>(text::key_id(first));
    return text::key_logit(first) == -infinity() ? sampler_all_infinite : 0;
}

/// The draw of a kept id (step 7) of scale_logit `scaled`, without the id: order_key's upper half. 0 if min-p
/// (step 6) drops it.
GG_HD inline unsigned sampler_score(const SamplerSettings& settings, float scaled, unsigned id,
                                    unsigned long long step) {
    if (settings.min_p > 0.0F && gg::exp(scaled) < settings.min_p) return 0;
    return static_cast<unsigned>(text::order_key(scaled + text::gumbel_noise(settings.seed, id, step), id) >>
                                 32);
}

/// The key that the largest of is the draw, from a score and the key of its id.
GG_HD inline SamplerKey draw_key(unsigned score, SamplerKey key) {
    return score == 0 ? 0 : static_cast<SamplerKey>(score) << 32 | static_cast<unsigned>(key);
}

/// Whether there is a penalty, and so a history.
GG_HD inline bool keeps_history(const SamplerSettings& settings) {
    return settings.repeat_penalty != 1.0F && settings.repeat_window > 0;
}

/// The one that comes first in the order.
GG_HD inline SamplerKey larger(SamplerKey a, SamplerKey b) {
    return a > b ? a : b;
}

/// One slice of one row.
struct SamplerSlice {
    int number, begin, count;  ///< its first id, and ids
};

/// The slice of that number.
GG_HD inline SamplerSlice sampler_slice(int vocabulary, int number) {
    const int bits = sampler_slice_bits(vocabulary), begin = number << bits, rest = vocabulary - begin;
    return {number, begin, rest < 1 << bits ? rest : 1 << bits};
}

/// What one block works on: known before its kernel waits for the one before.
struct SamplerTask {
    SamplerMode mode;
    int slices;  ///< of the row
    SamplerSlice slice;
    SamplerRow work;
};

/// The task of a row's slice.
GG_HD inline SamplerTask sampler_task(const SamplerArgs& args, const SamplerSettings& settings, int row,
                                      int slice) {
    return {sampler_mode(settings, args.vocabulary), sampler_slices(args.vocabulary),
            sampler_slice(args.vocabulary, slice), sampler_row(args, row)};
}

/// A thread's logits of a slice, all loads under way at once: thread, thread + threads, ...
template <class Block>
struct SliceLogits {
    static constexpr int each = sampler_largest_slice / Block::threads;
    static_assert(each * Block::threads == sampler_largest_slice);
    float value[each];

    GG_HD void load(Block& block, const float* logits, const SamplerSlice& slice, int thread) {
        GG_UNROLL
        for (int j = 0; j < each; ++j) {
            const int i = j * Block::threads + thread;
            value[j] = i < slice.count ? block.load(logits + slice.begin + i) : -infinity();
        }
    }
    GG_HD void store(float* shared, int thread) const {
        GG_UNROLL
        for (int j = 0; j < each; ++j) shared[j * Block::threads + thread] = value[j];
    }
};

/// Which of a thread's ids of a slice must not be drawn: bit j for id thread + j * threads. Only copies write
/// what it reads.
template <class Block>
GG_HD unsigned blocked_ids(const unsigned* blocked, const SamplerSlice& slice, int thread) {
    unsigned mask = 0;
    if (!blocked) return mask;
    GG_UNROLL
    for (int j = 0; j < SliceLogits<Block>::each; ++j) {
        const int i = j * Block::threads + thread, id = slice.begin + i;
        if (i < slice.count) mask |= (blocked[id / 32] >> id % 32 & 1U) << j;
    }
    return mask;
}

/// The first key of a row. The logits of a slice go to shared memory, each thread's own; also(thread, key),
/// where key is the first of slice `thread` if there is one and else 0, loads more at the same time.
template <class Block, class Also>
GG_HD SamplerKey first_key(Block& block, float* shared, const SamplerTask& task, Also also) {
    return block.largest([&](int thread) {
        SliceLogits<Block> logits;
        SamplerKey best = thread < task.slices ? block.load(task.work.slice_first + thread) : 0;
        logits.load(block, task.work.logits, task.slice, thread);
        also(thread, best);
        logits.store(shared, thread);
        GG_ROLLED
        for (int i = thread + Block::threads; i < task.slices; i += Block::threads)
            best = larger(best, block.load(task.work.slice_first + i));
        return best;
    });
}

}  // namespace gg::cuda
