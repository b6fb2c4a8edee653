// The sampler's last stage: the id, which goes to the host and, if asked for, into the row and its history.
// See gg/cuda/sampler_stages.hpp. Includes nothing from the system.
#pragma once

#include "gg/core/device.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/cuda/sampler_selection.hpp"
#include "gg/cuda/sampler_short_list.hpp"
#include "gg/cuda/sampler_slice.hpp"
#include "gg/text/logit.hpp"

namespace gg::cuda {

/// Shared memory for a list of any length, and for what makes it.
struct EdgeShared {
    static constexpr int staged = 2048;
    Cells cells;
    Cut cut;
    Found found;
    SamplerKey sure;  // the largest draw outside the list
    struct List {
        SamplerKey keys[staged];
        unsigned scores[staged];
    };
    union {
        float logits[sampler_largest_slice];
        List list;
    };
};

/// What a row's draw moves on, and where its id goes: looked up long before there is one.
struct SamplerProgress {
    SamplerState* state;
    Row* row;  ///< null: an id is not accepted
    unsigned long long step, accepted, calls;
    int position, overflows;
    Drawn* drawn;  ///< null: nobody reads it
    int* recent;   ///< null: there is no history, or the id is not accepted
};

struct ChooseShared {
    SamplerProgress progress;
    union {
        ShortListShared short_list;
        EdgeShared edge;
    };
};

/// The largest draw among the `count` listed ids that top-k and top-p keep.
template <class Block>
GG_HD SamplerKey draw_from_list(Block& block, EdgeShared& shared, const SamplerSettings& settings,
                                const SamplerRow& work, const Cut& cut, int count, float largest) {
    const int staged = count < EdgeShared::staged ? count : EdgeShared::staged;
    block.phase([&](int thread) {
        for (int i = thread; i < staged; i += Block::threads) {
            shared.list.keys[i] = block.load(work.listed + i);
            shared.list.scores[i] = block.load(work.scores + i);
        }
    });
    const KeyList list = {work.listed, shared.list.keys, count, staged};
    KeyFilter filter = {cut.count_first, cut.count_bin, 0, largest, settings.temperature};
    GG_ROLLED
    for (int pass = 0; pass < 2; ++pass) {  // top-k, then top-p
        const bool by_mass = pass == 1;
        if (by_mass ? settings.top_p >= 1.0F : cut.count_needed == 0) continue;
        unsigned long long needed = cut.count_needed;
        if (by_mass) {
            const unsigned long long total =
                needed == 0 ? cut.mass_kept : cut.mass_before + mass_of(block, list, filter);
            needed = wanted_mass(settings.top_p, total) - cut.mass_sure;
            filter.first_bin = cut.first_bin;
            filter.last_bin = cut.last_bin;
        }
        filter.lowest = select_key(block, shared.cells, shared.found, list, filter, by_mass, needed);
    }
    return block.largest([&](int thread) {
        SamplerKey best = 0;
        list.each(block, thread, [&](SamplerKey key, int i) {
            if (i < 0 || key < filter.lowest) return;
            const unsigned score = i < staged ? shared.list.scores[i] : block.load(work.scores + i);
            best = larger(best, draw_key(score, key));
        });
        return best;
    });
}

/// Whether slice_draw is written.
GG_HD inline bool has_draws(SamplerMode mode) {
    return mode == SamplerMode::whole || mode == SamplerMode::bins;
}

/// The bins' part of stage 3 for one slice: the draws of the ids that are surely kept, and the edge into the
/// list. Gives the cut.
template <class Block>
GG_HD Cut gather(Block& block, EdgeShared& shared, const SamplerTask& task, const SamplerSettings& settings,
                 int vocabulary, unsigned long long step) {
    const SamplerSlice& slice = task.slice;
    const SamplerRow& work = task.work;
    const SamplerKey first = first_key(block, shared.logits, task, [&](int thread, SamplerKey) {
        load_bins(block, shared.cells, settings, work, thread);
        if (thread == 0) shared.cut = no_cut();
    });
    const bool failed = sampler_status(first) != 0;
    const float largest = text::key_logit(first);
    const Cut cut = failed ? no_cut() : find_cut(block, shared.cells, shared.cut, settings, vocabulary);
    const SamplerKey best = block.largest([&](int thread) {
        SamplerKey mine = 0;
        GG_ROLLED
        for (int i = thread; i < slice.count && !failed; i += Block::threads) {
            const float logit = shared.logits[i];
            const int bin = logit_bin(logit, largest);
            const bool sure = bin < cut.sure_end;
            if (!sure && !cut.is_listed(bin)) continue;
            const auto id = static_cast<unsigned>(slice.begin + i);
            const SamplerKey key = text::order_key(logit, id);
            const unsigned score =
                sampler_score(settings, text::scale_logit(logit, largest, settings.temperature), id, step);
            if (sure) {
                mine = larger(mine, draw_key(score, key));
            } else {
                const unsigned place = block.add(work.listed_count, 1U);
                work.listed[place] = key;
                work.scores[place] = score;
            }
        }
        return mine;
    });
    block.phase([&](int thread) {
        if (thread == 0) work.slice_draw[slice.number] = best;
    });
    return cut;
}

/// See SamplerProgress.
template <class Block>
GG_HD SamplerProgress load_progress(Block& block, const SamplerArgs& args, const SamplerSettings& settings,
                                    SamplerState* state, Row& row) {
    SamplerProgress at = {state,
                          args.append != 0 ? &row : nullptr,
                          block.load(&state->step),
                          block.load(&state->accepted),
                          block.load(&state->calls),
                          block.load(&row.position),
                          args.overflows ? block.load(args.overflows) : 0,
                          nullptr,
                          nullptr};
    if (settings.drawn) at.drawn = settings.drawn + at.calls % static_cast<unsigned long long>(drawn_slots);
    if (at.row && keeps_history(settings))
        at.recent = settings.recent + at.accepted % static_cast<unsigned long long>(settings.repeat_window);
    return at;
}

/// Ends a row's draw with an id or a SamplerStatus; one thread does.
GG_HD inline void advance(const SamplerProgress& at, int id) {
    if (at.drawn) *at.drawn = {id, at.overflows};
    at.state->calls = at.calls + 1;
    if (at.row) {
        at.row->token = id < 0 ? 0 : id;  // what follows a failed draw is computed, and thrown away
        at.row->position = at.position + 1;
    }
    if (id < 0) return;
    at.state->step = at.step + 1;
    if (!at.recent) return;
    *at.recent = id;
    at.state->accepted = at.accepted + 1;
}

/// One thread's part of the slices' first keys and draws.
template <class Block>
GG_HD void load_slices(Block& block, EdgeShared& shared, const SamplerTask& task, int thread) {
    static_assert(2 * Block::threads <= EdgeShared::staged);
    SamplerKey first = 0, draw = 0;
    GG_ROLLED
    for (int i = thread; i < task.slices; i += Block::threads) {
        first = larger(first, block.load(task.work.slice_first + i));
        if (has_draws(task.mode)) draw = larger(draw, block.load(task.work.slice_draw + i));
    }
    shared.list.keys[thread] = first;
    shared.list.keys[Block::threads + thread] = draw;
}

/// The id of a row, or a SamplerStatus, from what load_slices loaded, and the list.
template <class Block>
GG_HD int choose_from_slices(Block& block, EdgeShared& shared, const SamplerTask& task,
                             const SamplerSettings& settings, const Cut& cut) {
    const SamplerKey* firsts = shared.list.keys;
    const SamplerKey* draws = firsts + Block::threads;
    const bool lists = task.mode == SamplerMode::threshold || task.mode == SamplerMode::bins;
    const int listed = lists ? static_cast<int>(block.load(task.work.listed_count)) : 0;
    const SamplerKey first = block.largest([&](int thread) { return firsts[thread]; });
    const int status = sampler_status(first);
    if (status != 0) return status;
    if (task.mode == SamplerMode::greedy) return static_cast<int>(text::key_id(first));
    const SamplerKey sure =
        has_draws(task.mode) ? block.largest([&](int thread) { return draws[thread]; }) : 0;
    if (listed == 0) return static_cast<int>(text::key_id(sure));
    block.phase([&](int thread) {
        if (thread == 0) shared.sure = sure;
    });
    const SamplerKey best =
        draw_from_list(block, shared, settings, task.work, cut, listed, text::key_logit(first));
    return static_cast<int>(text::key_id(larger(best, shared.sure)));
}

/// Stage 3, for one slice of one row.
template <class Block>
GG_HD void choose(Block& block, ChooseShared& shared, const SamplerTask& task, const SamplerArgs& args,
                  const SamplerSettings& settings, SamplerState* state, Row& row) {
    const SamplerMode mode = task.mode;
    if (mode != SamplerMode::bins && task.slice.number != 0) return;
    const SamplerRow& work = task.work;
    const bool by_list = mode == SamplerMode::threshold;
    // All that the usual options need is on its way at once.
    const int count = by_list ? static_cast<int>(block.load(work.listed_count)) : 0;
    block.phase([&](int thread) {
        if (by_list && thread < sampler_short_list) load_entry(block, shared.short_list, work, thread);
        if (!by_list && mode != SamplerMode::bins) load_slices(block, shared.edge, task, thread);
        if (thread == Block::threads - 1) shared.progress = load_progress(block, args, settings, state, row);
    });
    int id;
    if (count > 0 && count <= sampler_short_list) {
        id = static_cast<int>(text::key_id(draw_from_short_list(block, shared.short_list, settings, count)));
    } else {
        Cut cut = whole_list(static_cast<unsigned>(settings.top_k));
        if (mode == SamplerMode::bins) {
            cut = gather(block, shared.edge, task, settings, args.vocabulary, shared.progress.step);
            if (!block.last(work.slices_done, task.slices)) return;
        }
        if (by_list || mode == SamplerMode::bins)
            block.phase([&](int thread) { load_slices(block, shared.edge, task, thread); });
        id = choose_from_slices(block, shared.edge, task, settings, cut);
    }
    block.phase([&](int thread) {
        if (thread == 0) advance(shared.progress, id);
    });
}

/// Adds tokens of the text, from the prompt or drawn, to a history. Ids below 0 may only be passed one at a
/// time: they are left out.
template <class Block>
GG_HD void accept_tokens(Block& block, SamplerState* state, const SamplerSettings& settings,
                         const int* tokens, int count) {
    if (!keeps_history(settings)) return;
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
