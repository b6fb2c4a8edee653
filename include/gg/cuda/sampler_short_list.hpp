// Top-k and top-p of a short list, without sorting: the rank of each key, and the mass before it, by
// comparing all pairs in parallel. Also the threshold that makes the list: of the first ids of all slices,
// the k-th is one that at least k ids of the row are not after. Written for the Block of
// gg/cuda/sampler_selection.hpp. Includes nothing from the system.
#pragma once

#include "gg/core/device.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/cuda/sampler_selection.hpp"
#include "gg/cuda/sampler_slice.hpp"

namespace gg::cuda {

/// Threads that share the comparisons of one key: its rank is the sum of their counts.
template <class Block>
inline constexpr int rank_parts = Block::threads / sampler_short_list;

struct ThresholdShared {
    alignas(16) unsigned firsts[sampler_short_list];  // see threshold_key
    unsigned ranks[8][sampler_short_list];
    unsigned threshold;
};

/// The upper half of a slice's first key, a little smaller, so that each slice has another one.
GG_HD inline unsigned threshold_key(SamplerKey first, int slice) {
    constexpr unsigned low = sampler_short_list - 1;
    return (static_cast<unsigned>(first >> 32) & ~low) | (low - static_cast<unsigned>(slice));
}

/// A number such that the upper halves of at least the first `top_k` keys of the row are not below it:
/// shared.firsts has the threshold_key of so many slices at least, and 0 in all other places.
template <class Block>
GG_HD unsigned find_threshold(Block& block, ThresholdShared& shared, int top_k) {
    constexpr int parts = rank_parts<Block>, each = sampler_short_list / parts;
    static_assert(parts >= 1 && parts <= 8 && parts * sampler_short_list == Block::threads);
    block.phase([&](int thread) {
        const int i = thread % sampler_short_list, part = thread / sampler_short_list;
        const unsigned own = shared.firsts[i];
        unsigned rank = 0;
        GG_UNROLL
        for (int j = 0; j < each; ++j) rank += shared.firsts[part * each + j] > own ? 1U : 0U;
        shared.ranks[part][i] = rank;
    });
    block.phase([&](int thread) {
        if (thread >= sampler_short_list) return;
        unsigned rank = 0;
        GG_UNROLL
        for (int part = 0; part < parts; ++part) rank += shared.ranks[part][thread];
        const unsigned own = shared.firsts[thread];
        if (own != 0 && rank == static_cast<unsigned>(top_k) - 1U)
            shared.threshold = own & ~static_cast<unsigned>(sampler_short_list - 1);
    });
    return shared.threshold;
}

struct ShortListShared {
    alignas(16) SamplerKey keys[sampler_short_list];  // 0 after the last
    alignas(16) unsigned long long masses[sampler_short_list];
    unsigned scores[sampler_short_list];
    unsigned ranks[8][sampler_short_list];
    unsigned long long before[8][sampler_short_list];
    unsigned long long kept_mass;
};

/// One thread's part of the list, which ends in zeros.
template <class Block>
GG_HD void load_entry(Block& block, ShortListShared& shared, const SamplerRow& work, int i) {
    const SamplerKey key = block.load(work.listed + i);
    const unsigned long long mass = block.load(work.masses + i);
    const unsigned score = block.load(work.scores + i);
    shared.keys[i] = key;
    shared.masses[i] = mass;
    shared.scores[i] = score;
}

/// The largest draw among the `count` listed ids that top-k and top-p keep.
template <class Block>
GG_HD SamplerKey draw_from_short_list(Block& block, ShortListShared& shared, const SamplerSettings& settings,
                                      int count) {
    constexpr int parts = rank_parts<Block>, batch = 8;
    static_assert(parts >= 1 && parts <= 8 && parts * sampler_short_list == Block::threads);
    block.phase([&](int thread) {
        const int i = thread % sampler_short_list, part = thread / sampler_short_list;
        if (i >= count) return;
        const SamplerKey own = shared.keys[i];
        unsigned rank = 0;
        unsigned long long before = 0;
        GG_ROLLED
        for (int base = part * batch; base < count; base += parts * batch) {
            SamplerKey key[batch];
            unsigned long long mass[batch];
            GG_UNROLL
            for (int j = 0; j < batch; ++j) {
                key[j] = shared.keys[base + j];
                mass[j] = shared.masses[base + j];
            }
            GG_UNROLL
            for (int j = 0; j < batch; ++j) {
                rank += key[j] > own ? 1U : 0U;
                before += key[j] > own ? mass[j] : 0;
            }
        }
        shared.ranks[part][i] = rank;
        shared.before[part][i] = before;
    });
    const unsigned kept = static_cast<unsigned>(count < settings.top_k ? count : settings.top_k);
    block.phase([&](int thread) {
        if (thread >= count) return;
        Tally sum = {0, 0};
        GG_UNROLL
        for (int part = 0; part < parts; ++part)
            sum = sum + Tally{shared.before[part][thread], shared.ranks[part][thread]};
        shared.ranks[0][thread] = sum.count;
        shared.before[0][thread] = sum.mass;
        if (sum.count == kept - 1U) shared.kept_mass = sum.mass + shared.masses[thread];
    });
    const bool by_mass = settings.top_p < 1.0F;
    const unsigned long long wanted = by_mass ? wanted_mass(settings.top_p, shared.kept_mass) : 0;
    return block.largest([&](int thread) -> SamplerKey {
        if (thread >= count || shared.ranks[0][thread] >= kept) return 0;
        if (by_mass && shared.before[0][thread] >= wanted) return 0;
        return draw_key(shared.scores[thread], shared.keys[thread]);
    });
}

}  // namespace gg::cuda
