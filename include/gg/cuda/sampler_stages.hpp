// The four stages of sampling from rows of logits, the twin of gg::text::Sampler: same logits, options,
// history, seed and step, same id. The definition, by its numbers, is in gg/text/sampler.hpp. One kernel a
// stage:
//
//   maximum    slices x rows   step 1; the first id of each slice; what the next stages need is cleared
//   histogram  slices x rows   ids and masses in bins of logits, if top-k or top-p is on
//   gather     slices x rows   the largest draw among ids that are kept whatever the edge is; lists the edge
//   choose     1 x rows        steps 4 and 5 exactly on the edge; the id; step and history advance
//
// Temperature 0 has nothing to do in the middle two. Bytes moved for V ids: 4 V read, then, unless greedy, 4
// V written and at most 8 V read in second-level cache, and the edge: a few hundred bytes, at worst 12 V.
//
// Bins are beginnings of the order, so top-k and top-p end in one bin each. Everything is integers or a
// maximum: no result depends on the order of threads. Block: see sampler_selection.hpp. Includes nothing from
// the system.
#pragma once

#include "gg/core/device.hpp"
#include "gg/core/math.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/cuda/sampler_selection.hpp"
#include "gg/text/logit.hpp"
#include "gg/text/random.hpp"

namespace gg::cuda {

/// The order_key of a logit; a NaN comes before all, the lowest id first.
GG_HD inline SamplerKey sampler_key(float logit, unsigned id) {
    return logit != logit ? 0xFFFFFFFFULL << 32 | (0xFFFFFFFFU - id) : text::order_key(logit, id);
}

/// 0 if the first key of a row is that of an id which can be drawn, else the failure.
GG_HD inline int sampler_status(SamplerKey first) {
    if (static_cast<unsigned>(first >> 32) == 0xFFFFFFFFU)
        return sampler_nan - static_cast<int>(text::key_id(first));
    return text::key_logit(first) == -infinity() ? sampler_all_infinite : 0;
}

/// The draw of a kept id (step 7), without the id: order_key's upper half. 0 if min-p (step 6) drops it.
GG_HD inline unsigned sampler_score(const SamplerSettings& settings, float logit, float largest, unsigned id,
                                    unsigned long long step) {
    const float scaled = text::scale_logit(logit, largest, settings.temperature);
    if (settings.min_p > 0.0F && gg::exp(scaled) < settings.min_p) return 0;
    return static_cast<unsigned>(text::order_key(scaled + text::gumbel_noise(settings.seed, id, step), id) >>
                                 32);
}

/// The key that the largest of is the draw, from a score and the key of its id.
GG_HD inline SamplerKey draw_key(unsigned score, SamplerKey key) {
    return score == 0 ? 0 : static_cast<SamplerKey>(score) << 32 | static_cast<unsigned>(key);
}

namespace detail {

/// The one that comes first in the order.
GG_HD inline SamplerKey larger(SamplerKey a, SamplerKey b) {
    return a > b ? a : b;
}

/// A thread's logits of a slice, all loads under way at once: thread, thread + threads, ...
template <class Block>
struct SliceLogits {
    static constexpr int each = sampler_slice / Block::threads;
    static_assert(each * Block::threads == sampler_slice);
    float value[each];

    GG_HD void load(Block& block, const float* logits, int count, int thread) {
        GG_UNROLL
        for (int j = 0; j < each; ++j) {
            const int i = j * Block::threads + thread;
            value[j] = i < count ? block.load(logits + i) : -infinity();
        }
    }
    GG_HD void store(float* shared, int thread) const {
        GG_UNROLL
        for (int j = 0; j < each; ++j) shared[j * Block::threads + thread] = value[j];
    }
};

/// Ids in a slice.
GG_HD inline int slice_count(int vocabulary, int slice) {
    const int rest = vocabulary - slice * sampler_slice;
    return rest < sampler_slice ? rest : sampler_slice;
}

/// The first key of a row. The logits of a slice go to shared memory, each thread's own; also(thread) loads
/// more at the same time.
template <class Block, class Also>
GG_HD SamplerKey first_key(Block& block, float* shared, const SamplerRow& work, int vocabulary, int slice,
                           Also also) {
    return block.template reduce<SamplerKey>(
        [&](int thread) {
            const int slices = sampler_slices(vocabulary);
            SliceLogits<Block> logits;
            SamplerKey best = thread < slices ? block.load(work.slice_first + thread) : 0;
            logits.load(block, work.logits + slice * sampler_slice, slice_count(vocabulary, slice), thread);
            also(thread);
            logits.store(shared, thread);
            for (int i = thread + Block::threads; i < slices; i += Block::threads)
                best = larger(best, block.load(work.slice_first + i));
            return best;
        },
        larger);
}

/// Whether there is a penalty, and so a history.
GG_HD inline bool keeps_history(const SamplerSettings& settings) {
    return settings.repeat_penalty != 1.0F && settings.repeat_window > 0;
}

}  // namespace detail

struct MaximumShared {
    float logits[sampler_slice];
    unsigned recent[sampler_slice / 32];  // bit i: id i of the slice is to be penalised
};

/// Stage 1, for one slice of one row.
template <class Block>
GG_HD void find_maximum(Block& block, MaximumShared& shared, const SamplerArgs& args,
                        const SamplerSettings& settings, int row, int slice) {
    const SamplerRow work = sampler_row(args, row);
    const int slices = sampler_slices(args.vocabulary), begin = slice * sampler_slice;
    const int count = detail::slice_count(args.vocabulary, slice);
    const bool greedy = settings.temperature == 0.0F;
    const bool history = detail::keeps_history(settings);
    const float* logits = args.rows[row].logits + begin;
    block.phase([&](int thread) {
        detail::SliceLogits<Block> mine;
        mine.load(block, logits, count, thread);
        for (int i = thread; i < sampler_slice / 32; i += Block::threads) shared.recent[i] = 0;
        mine.store(shared.logits, thread);
        if (greedy) return;
        for (int bin = slice * Block::threads + thread; bin < sampler_bins; bin += slices * Block::threads) {
            work.bin_mass[bin] = 0;
            work.bin_count[bin] = 0;
        }
        if (thread != 0) return;
        work.slice_draw[slice] = 0;
        if (slice != 0) return;
        *work.listed_count = 0;
        *work.cut = no_cut();
    });
    if (history) {
        const auto window = static_cast<unsigned long long>(settings.repeat_window);
        const unsigned long long accepted = block.load(&args.rows[row].sampler->accepted);
        const int recent = static_cast<int>(accepted < window ? accepted : window);
        block.phase([&](int thread) {
            for (int i = thread; i < recent; i += Block::threads) {
                const int id = block.load(settings.recent + i) - begin;
                if (id >= 0 && id < count) block.set_bits(&shared.recent[id / 32], 1U << id % 32);
            }
        });
    }
    const SamplerKey first = block.template reduce<SamplerKey>(
        [&](int thread) {
            SamplerKey best = 0;
            for (int i = thread; i < count; i += Block::threads) {
                const int id = begin + i;
                float logit = shared.logits[i];
                if (history && (shared.recent[i / 32] >> i % 32 & 1U) != 0)
                    logit = text::penalize(logit, settings.repeat_penalty);
                if (settings.blocked && (settings.blocked[id / 32] >> id % 32 & 1U) != 0) logit = -infinity();
                if (!greedy) work.logits[id] = logit;
                best = detail::larger(best, sampler_key(logit, static_cast<unsigned>(id)));
            }
            return best;
        },
        detail::larger);
    block.phase([&](int thread) {
        if (thread == 0) work.slice_first[slice] = first;
    });
}

struct HistogramShared {
    Cells cells;
    float logits[sampler_slice];
};

/// Stage 2, for one slice of one row.
template <class Block>
GG_HD void fill_histogram(Block& block, HistogramShared& shared, const SamplerArgs& args,
                          const SamplerSettings& settings, int row, int slice) {
    if (settings.temperature == 0.0F || !needs_cut(settings, args.vocabulary)) return;
    const SamplerRow work = sampler_row(args, row);
    Cells& cells = shared.cells;
    const SamplerKey first =
        detail::first_key(block, shared.logits, work, args.vocabulary, slice, [&](int thread) {
            for (int cell = thread; cell < sampler_bins; cell += Block::threads) cells.clear(cell);
        });
    if (sampler_status(first) != 0) return;
    const float largest = text::key_logit(first);
    const bool by_mass = settings.top_p < 1.0F;
    const int count = detail::slice_count(args.vocabulary, slice);
    block.phase([&](int thread) {
        for (int base = 0; base < sampler_slice; base += Block::threads) {
            const float logit = shared.logits[base + thread];
            unsigned long long mass = 0;
            if (by_mass)
                mass = text::probability_mass(text::scale_logit(logit, largest, settings.temperature));
            block.tally(cells, base + thread < count, logit_bin(logit, largest), mass);
        }
    });
    block.phase([&](int thread) {
        for (int bin = thread; bin < sampler_bins; bin += Block::threads) {
            const Tally tally = cells.get(bin);
            if (tally.count != 0) block.add(work.bin_count + bin, tally.count);
            if (tally.mass != 0) block.add(work.bin_mass + bin, tally.mass);
        }
    });
}

struct GatherShared {
    Cells cells;
    Cut cut;
    unsigned count, begin;
    float logits[sampler_slice];
    SamplerKey keys[sampler_slice];
    unsigned scores[sampler_slice];
};

/// Stage 3, for one slice of one row.
template <class Block>
GG_HD void gather(Block& block, GatherShared& shared, const SamplerArgs& args,
                  const SamplerSettings& settings, int row, int slice) {
    if (settings.temperature == 0.0F) return;
    const SamplerRow work = sampler_row(args, row);
    const unsigned long long step = block.load(&args.rows[row].sampler->step);
    const bool cutting = needs_cut(settings, args.vocabulary);
    const SamplerKey first =
        detail::first_key(block, shared.logits, work, args.vocabulary, slice, [&](int thread) {
            if (cutting) load_bins(block, shared.cells, settings, work, thread);
            if (thread != 0) return;
            shared.cut = no_cut();
            shared.count = 0;
        });
    if (sampler_status(first) != 0) return;
    const float largest = text::key_logit(first);
    const Cut cut = cutting ? find_cut(block, shared.cells, shared.cut, settings, args.vocabulary) : no_cut();
    const int count = detail::slice_count(args.vocabulary, slice);
    const SamplerKey best = block.template reduce<SamplerKey>(
        [&](int thread) {
            SamplerKey mine = 0;
            for (int i = thread; i < count; i += Block::threads) {
                const float logit = shared.logits[i];
                const int bin = cutting ? logit_bin(logit, largest) : 0;
                const bool sure = bin < cut.sure_end;
                if (!sure && !cut.is_listed(bin)) continue;
                const unsigned id = static_cast<unsigned>(slice * sampler_slice + i);
                const SamplerKey key = text::order_key(logit, id);
                const unsigned score = sampler_score(settings, logit, largest, id, step);
                if (sure) {
                    mine = detail::larger(mine, draw_key(score, key));
                } else {
                    const unsigned place = block.add(&shared.count, 1U);
                    shared.keys[place] = key;
                    shared.scores[place] = score;
                }
            }
            return mine;
        },
        detail::larger);
    block.phase([&](int thread) {
        if (thread != 0) return;
        work.slice_draw[slice] = best;
        if (slice == 0) *work.cut = cut;
        if (shared.count != 0) shared.begin = block.add(work.listed_count, shared.count);
    });
    block.phase([&](int thread) {
        for (unsigned i = static_cast<unsigned>(thread); i < shared.count; i += Block::threads) {
            work.listed[shared.begin + i] = shared.keys[i];
            work.scores[shared.begin + i] = shared.scores[i];
        }
    });
}

struct ChooseShared {
    static constexpr int staged = 2048;
    Cells cells;
    Found found;
    SamplerKey keys[staged];
    unsigned scores[staged];
};

/// The largest draw among the `count` listed ids that top-k and top-p keep.
template <class Block>
GG_HD SamplerKey draw_from_list(Block& block, ChooseShared& shared, const SamplerSettings& settings,
                                const SamplerRow& work, const Cut& cut, int count, float largest) {
    const int staged = count < ChooseShared::staged ? count : ChooseShared::staged;
    block.phase([&](int thread) {
        for (int i = thread; i < staged; i += Block::threads) {
            shared.keys[i] = block.load(work.listed + i);
            shared.scores[i] = block.load(work.scores + i);
        }
    });
    const KeyList list = {work.listed, shared.keys, count, staged};
    KeyFilter filter = {cut.count_bin, cut.count_bin, 0, largest, settings.temperature};
    if (cut.count_needed != 0)
        filter.lowest = select_key(block, shared.cells, shared.found, list, filter, false, cut.count_needed);
    if (settings.top_p < 1.0F) {
        unsigned long long total = cut.mass_kept;
        if (cut.count_needed != 0) total = cut.mass_before + mass_of(block, list, filter);
        filter.first_bin = cut.first_bin;
        filter.last_bin = cut.last_bin;
        filter.lowest = select_key(block, shared.cells, shared.found, list, filter, true,
                                   wanted_mass(settings.top_p, total) - cut.mass_sure);
    }
    return block.template reduce<SamplerKey>(
        [&](int thread) {
            SamplerKey best = 0;
            list.each(block, thread, [&](SamplerKey key, int i) {
                if (i < 0 || key < filter.lowest) return;
                const unsigned score = i < staged ? shared.scores[i] : block.load(work.scores + i);
                best = detail::larger(best, draw_key(score, key));
            });
            return best;
        },
        detail::larger);
}

/// Stage 4, for one row.
template <class Block>
GG_HD void choose(Block& block, ChooseShared& shared, const SamplerArgs& args,
                  const SamplerSettings& settings, int row) {
    const SamplerRow work = sampler_row(args, row);
    const bool greedy = settings.temperature == 0.0F;
    const bool cutting = !greedy && needs_cut(settings, args.vocabulary);
    const int listed = cutting ? static_cast<int>(block.load(work.listed_count)) : 0;
    const Cut cut = cutting ? load_cut(block, work.cut) : no_cut();
    // The first key of the row and the largest draw of what is surely kept.
    const KeyRange found = block.template reduce<KeyRange>(
        [&](int thread) {
            KeyRange best = {0, 0};
            for (int i = thread; i < sampler_slices(args.vocabulary); i += Block::threads) {
                const SamplerKey draw = greedy ? 0 : block.load(work.slice_draw + i);
                best = {detail::larger(best.first, block.load(work.slice_first + i)),
                        detail::larger(best.last, draw)};
            }
            return best;
        },
        [](KeyRange a, KeyRange b) {
            return KeyRange{detail::larger(a.first, b.first), detail::larger(a.last, b.last)};
        });
    const int status = sampler_status(found.first);
    SamplerKey best = greedy ? found.first : found.last;
    if (status == 0 && listed > 0)
        best = detail::larger(
            best, draw_from_list(block, shared, settings, work, cut, listed, text::key_logit(found.first)));
    block.phase([&](int thread) {
        if (thread != 0) return;
        Row& at = args.rows[row];
        SamplerState& state = *at.sampler;
        const int id = status != 0 ? status : static_cast<int>(text::key_id(best));
        const unsigned long long calls = block.load(&state.calls);
        if (settings.drawn) {
            Drawn& drawn = settings.drawn[calls % static_cast<unsigned long long>(drawn_slots)];
            drawn = {id, args.overflows ? block.load(args.overflows) : 0};
        }
        state.calls = calls + 1;
        if (args.append != 0) {
            at.token = id < 0 ? 0 : id;  // what follows a failed draw is computed, and thrown away
            at.position = block.load(&at.position) + 1;
        }
        if (status != 0) return;
        state.step = block.load(&state.step) + 1;
        if (args.append == 0 || !detail::keeps_history(settings)) return;
        const unsigned long long accepted = block.load(&state.accepted);
        settings.recent[accepted % static_cast<unsigned long long>(settings.repeat_window)] = id;
        state.accepted = accepted + 1;
    });
}

/// Adds tokens of the text, from the prompt or drawn, to a history. Ids below 0 may only be passed one at a
/// time: they are left out.
template <class Block>
GG_HD void accept_tokens(Block& block, SamplerState* state, const SamplerSettings& settings,
                         const int* tokens, int count) {
    if (!detail::keeps_history(settings)) return;
    if (count == 1 && block.load(tokens) < 0) return;
    const int window = settings.repeat_window;
    const unsigned long long accepted = block.load(&state->accepted);
    block.phase([&](int thread) {
        for (int i = (count > window ? count - window : 0) + thread; i < count; i += Block::threads)
            settings.recent[(accepted + static_cast<unsigned long long>(i)) %
                            static_cast<unsigned long long>(window)] = block.load(tokens + i);
    });
    block.phase([&](int thread) {
        if (thread == 0) state->accepted = accepted + static_cast<unsigned long long>(count);
    });
}

}  // namespace gg::cuda
