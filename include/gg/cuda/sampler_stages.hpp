// The stages of sampling from rows of logits, the twin of gg::text::Sampler: same logits, options, history,
// seed and step, same id. The definition, by its numbers, is in gg/text/sampler.hpp. One kernel a stage, each
// of slices x rows blocks; what they do depends on the options (SamplerMode):
//
//             greedy      whole             threshold                       bins
//   maximum   step 1; the first id of each slice; what the next stages need is cleared
//   collect   -           the largest draw  lists the ids that may be       ids and masses in bins of logits
//                         of each slice     among the first k, with draws
//   choose    the first   the largest draw  steps 4 and 5 on the list       where the order is cut; draws
//   before
//             id                                                            the edge; lists the edge; the
//             last
//                                                                           block does steps 4 and 5 on it
//
// and choose lets step and history advance (gg/cuda/sampler_choose.hpp). Bytes moved for V ids: 4 V read,
// then, unless greedy, 4 V written and at most 8 V read in second-level cache, and the list: a few kilobytes,
// at worst 12 V.
//
// Whatever is listed, top-k and top-p are exact, and everything is integers or a maximum: no result depends
// on the order of threads. Block: see sampler_selection.hpp. Includes nothing from the system.
#pragma once

#include "gg/core/device.hpp"
#include "gg/core/math.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/cuda/sampler_selection.hpp"
#include "gg/cuda/sampler_short_list.hpp"
#include "gg/cuda/sampler_slice.hpp"
#include "gg/text/logit.hpp"

namespace gg::cuda {

struct MaximumShared {
    unsigned recent[sampler_largest_slice / 32];  // bit i: id i of the slice is to be penalised
};

namespace detail {

/// Clears what the next stages add to.
template <class Block>
GG_HD void clear_sums(const SamplerTask& task, int thread) {
    const SamplerRow& work = task.work;
    if (task.mode == SamplerMode::bins) {
        GG_ROLLED
        for (int bin = task.slice.number * Block::threads + thread; bin < sampler_bins;
             bin += task.slices * Block::threads) {
            work.bin_mass[bin] = 0;
            work.bin_count[bin] = 0;
        }
    }
    if (task.slice.number != 0) return;
    if (thread < sampler_short_list) {
        work.listed[thread] = 0;
        work.scores[thread] = 0;
        work.masses[thread] = 0;
    }
    if (thread == 0) *work.listed_count = *work.slices_done = 0;
}

/// The penalty, and what must not be drawn: step 1.
template <class Block>
GG_HD void change_logits(SliceLogits<Block>& mine, const MaximumShared& shared,
                         const SamplerSettings& settings, unsigned blocked, int thread) {
    if (keeps_history(settings)) {
        GG_UNROLL
        for (int j = 0; j < SliceLogits<Block>::each; ++j) {
            const int i = j * Block::threads + thread;
            if ((shared.recent[i / 32] >> i % 32 & 1U) != 0)
                mine.value[j] = text::penalize(mine.value[j], settings.repeat_penalty);
        }
    }
    if (blocked == 0) return;
    GG_UNROLL
    for (int j = 0; j < SliceLogits<Block>::each; ++j)
        if ((blocked >> j & 1U) != 0) mine.value[j] = -infinity();
}

}  // namespace detail

/// Stage 1, for one slice of one row. blocked(thread) is the thread's blocked_ids.
template <class Block, class Blocked>
GG_HD void find_maximum(Block& block, MaximumShared& shared, const SamplerTask& task,
                        const SamplerSettings& settings, const SamplerState* state, const float* logits,
                        Blocked blocked) {
    const SamplerSlice& slice = task.slice;
    if (keeps_history(settings)) {
        const auto window = static_cast<unsigned long long>(settings.repeat_window);
        const unsigned long long accepted = block.load(&state->accepted);
        const int recent = static_cast<int>(accepted < window ? accepted : window);
        block.phase([&](int thread) {
            if (thread < sampler_largest_slice / 32) shared.recent[thread] = 0;
        });
        block.phase([&](int thread) {
            GG_ROLLED
            for (int i = thread; i < recent; i += Block::threads) {
                const int id = block.load(settings.recent + i) - slice.begin;
                if (id >= 0 && id < slice.count) block.set_bits(&shared.recent[id / 32], 1U << id % 32);
            }
        });
    }
    const SamplerKey first = block.largest([&](int thread) -> SamplerKey {
        SliceLogits<Block> mine;
        mine.load(block, logits, slice, thread);
        if (task.mode != SamplerMode::greedy) detail::clear_sums<Block>(task, thread);
        detail::change_logits(mine, shared, settings, blocked(thread), thread);
        unsigned first = 0, id_of_first = 0;
        GG_UNROLL
        for (int j = 0; j < SliceLogits<Block>::each; ++j) {
            const int i = j * Block::threads + thread, id = slice.begin + i;
            if (i >= slice.count) continue;
            if (task.mode != SamplerMode::greedy) task.work.logits[id] = mine.value[j];
            const unsigned order = sampler_order(mine.value[j]);
            if (order <= first) continue;  // of equal ones, the lowest id
            first = order;
            id_of_first = static_cast<unsigned>(id);
        }
        return first == 0 ? 0 : static_cast<SamplerKey>(first) << 32 | (0xFFFFFFFFU - id_of_first);
    });
    block.phase([&](int thread) {
        if (thread == 0) task.work.slice_first[slice.number] = first;
    });
}

struct CollectShared {
    float logits[sampler_largest_slice];
    union {
        Cells cells;
        ThresholdShared threshold;
    };
};

/// Stage 2 without top-k and top-p: the largest draw of a slice.
template <class Block>
GG_HD void draw_from_slice(Block& block, CollectShared& shared, const SamplerTask& task,
                           const SamplerSettings& settings, unsigned long long step) {
    const SamplerSlice& slice = task.slice;
    const SamplerKey first = first_key(block, shared.logits, task, [](int, SamplerKey) {});
    const bool failed = sampler_status(first) != 0;
    const float largest = text::key_logit(first);
    const SamplerKey best = block.largest([&](int thread) {
        SamplerKey mine = 0;
        for (int i = thread; i < slice.count && !failed; i += Block::threads) {
            const auto id = static_cast<unsigned>(slice.begin + i);
            const float logit = shared.logits[i];
            const float scaled = text::scale_logit(logit, largest, settings.temperature);
            mine =
                larger(mine, draw_key(sampler_score(settings, scaled, id, step), text::order_key(logit, id)));
        }
        return mine;
    });
    block.phase([&](int thread) {
        if (thread == 0) task.work.slice_draw[slice.number] = best;
    });
}

/// Stage 2 with few ids to keep: lists those of a slice that may be among them, in any order.
template <class Block>
GG_HD void list_above_threshold(Block& block, CollectShared& shared, const SamplerTask& task,
                                const SamplerSettings& settings, unsigned long long step) {
    const SamplerSlice& slice = task.slice;
    const SamplerRow& work = task.work;
    const SamplerKey first = first_key(block, shared.logits, task, [&](int thread, SamplerKey key) {
        if (thread < sampler_short_list)
            shared.threshold.firsts[thread] = key == 0 ? 0 : threshold_key(key, thread);
    });
    if (sampler_status(first) != 0) return;
    const float largest = text::key_logit(first);
    // If this is no number, the threshold is -infinity.
    const float lowest = text::key_logit(
        static_cast<SamplerKey>(find_threshold(block, shared.threshold, settings.top_k)) << 32);
    block.phase([&](int thread) {
        GG_ROLLED
        for (int i = thread; i < slice.count; i += Block::threads) {
            const float logit = shared.logits[i];
            if (logit < lowest) continue;
            const unsigned place = block.add(work.listed_count, 1U);
            const auto id = static_cast<unsigned>(slice.begin + i);
            const float scaled = text::scale_logit(logit, largest, settings.temperature);
            const unsigned score = sampler_score(settings, scaled, id, step);
            work.listed[place] = text::order_key(logit, id);
            work.scores[place] = score;
            if (place < sampler_short_list) work.masses[place] = text::probability_mass(scaled);
        }
    });
}

/// Stage 2 otherwise: ids and masses of a slice by bins of logits.
template <class Block>
GG_HD void fill_histogram(Block& block, CollectShared& shared, const SamplerTask& task,
                          const SamplerSettings& settings) {
    const SamplerSlice& slice = task.slice;
    const SamplerRow& work = task.work;
    Cells& cells = shared.cells;
    const SamplerKey first = first_key(block, shared.logits, task, [&](int thread, SamplerKey) {
        GG_ROLLED
        for (int cell = thread; cell < sampler_bins; cell += Block::threads) cells.clear(cell);
    });
    if (sampler_status(first) != 0) return;
    const float largest = text::key_logit(first);
    const bool by_mass = settings.top_p < 1.0F;
    block.phase([&](int thread) {
        GG_ROLLED
        for (int base = 0; base < slice.count; base += Block::threads) {
            const bool active = base + thread < slice.count;
            const float logit = shared.logits[base + thread];
            unsigned long long mass = 0;
            if (by_mass)
                mass = text::probability_mass(text::scale_logit(logit, largest, settings.temperature));
            block.tally(cells, active, logit_bin(logit, largest), mass);
        }
    });
    block.phase([&](int thread) {
        GG_ROLLED
        for (int bin = thread; bin < sampler_bins; bin += Block::threads) {
            const Tally tally = cells.get(bin);
            if (tally.count != 0) block.add(work.bin_count + bin, tally.count);
            if (tally.mass != 0) block.add(work.bin_mass + bin, tally.mass);
        }
    });
}

/// Stage 2, for one slice of one row.
template <class Block>
GG_HD void collect(Block& block, CollectShared& shared, const SamplerTask& task,
                   const SamplerSettings& settings, const SamplerState* state) {
    if (task.mode == SamplerMode::greedy) return;
    if (task.mode == SamplerMode::bins) return fill_histogram(block, shared, task, settings);
    const unsigned long long step = block.load(&state->step);
    if (task.mode == SamplerMode::threshold)
        list_above_threshold(block, shared, task, settings, step);
    else
        draw_from_slice(block, shared, task, settings, step);
}

}  // namespace gg::cuda
