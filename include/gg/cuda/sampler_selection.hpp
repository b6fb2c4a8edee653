// Finding where a sorted order is cut, without sorting: histograms of integer counts and integer masses,
// which add up alike in any order of threads. Written for a block of threads that the caller provides, so
// that the same code runs on a GPU (gg/cuda/sampler.cuh) and, thread by thread, in a test on a processor.
//
// A Block has
//   threads                     their number, static constexpr
//   phase(f)                    f(thread) for all threads, then a barrier
//   reduce<T>(f, combine)       combine of all f(thread), known to all threads; ends with a barrier
//   largest(f)                  the same for the largest of keys
//   last(done, count)           adds the block to those that are done; whether it is the last of `count`, and
//                               sees what the others wrote before
//   scan(value, use)            use(thread, Tally of value(thread') of all threads before), between barriers
//   load(p)                     what an earlier kernel wrote
//   add(p, n), set_bits(p, bits)  atomic; add gives the old value
//   tally(cells, active, cell, mass)  cells[cell] += one id of that mass, called by all threads alike
// Includes nothing from the system.
#pragma once

#include "gg/core/device.hpp"
#include "gg/cuda/sampler_args.hpp"
#include "gg/text/logit.hpp"

#if defined(__CUDA_ARCH__)
#define GG_UNROLL _Pragma("unroll")
#define GG_ROLLED _Pragma("unroll 1")
#else
#define GG_UNROLL
#define GG_ROLLED
#endif

namespace gg::cuda {

/// gg::text::order_key: larger is earlier in the order.
using SamplerKey = unsigned long long;

/// A number of ids and the sum of their probability masses.
struct Tally {
    unsigned long long mass;
    unsigned count;
};

GG_HD inline Tally operator+(Tally a, Tally b) {
    return {a.mass + b.mass, a.count + b.count};
}

/// The first and the last key of a set.
struct KeyRange {
    SamplerKey first, last;
};

/// sampler_bins tallies in shared memory. A 64-bit mass is two words, for which there are fast atomics.
struct Cells {
    unsigned count[sampler_bins], low[sampler_bins], high[sampler_bins];

    GG_HD void clear(int cell) { count[cell] = low[cell] = high[cell] = 0; }
    GG_HD unsigned long long mass(int cell) const {
        return static_cast<unsigned long long>(high[cell]) << 32 | low[cell];
    }
    GG_HD void set_mass(int cell, unsigned long long mass) {
        low[cell] = static_cast<unsigned>(mass);
        high[cell] = static_cast<unsigned>(mass >> 32);
    }
    GG_HD Tally get(int cell) const { return {mass(cell), count[cell]}; }

    /// Atomically adds; the low word's carry goes to whoever caused it.
    template <class Block>
    GG_HD void add(Block& block, int cell, Tally tally) {
        block.add(&count[cell], tally.count);
        if (tally.mass == 0) return;
        const unsigned part = static_cast<unsigned>(tally.mass);
        const unsigned carry = block.add(&low[cell], part) + part < part ? 1U : 0U;
        const unsigned rest = static_cast<unsigned>(tally.mass >> 32) + carry;
        if (rest != 0) block.add(&high[cell], rest);
    }
};

/// The bin of a logit: 0 for the largest, and the larger the later in the order. By the bits of the distance
/// to the largest, 32 bins a power of two from 2^-22 to 2^9, so it suits logits of any spread.
GG_HD inline int logit_bin(float logit, float largest) {
    if (logit == largest) return 0;
    const unsigned bits = float_bits(largest - logit), smallest = (127U - 22U) << 23;
    if (bits < smallest) return 1;
    const unsigned bin = ((bits - smallest) >> 18) + 2U;
    return bin < sampler_bins ? static_cast<int>(bin) : sampler_bins - 1;
}

/// How a row's ids are cut, as far as the bins tell. Ids in bins below sure_end are kept, ids for which
/// is_listed may be, all others are not.
struct Cut {
    int sure_end;
    int count_first;                 ///< the last id that top-k keeps lies in this bin or a later one,
    int count_bin;                   ///< at the latest in this one
    unsigned count_needed;           ///< top-k keeps so many of these bins; 0 if all
    int first_bin;                   ///< the last id that top-p keeps lies in this bin,
    int last_bin;                    ///< in this one or between; before first_bin if top-p is off
    unsigned long long mass_before;  ///< of the bins before count_first
    unsigned long long mass_kept;    ///< of the bins that top-k keeps, count_bin included
    unsigned long long mass_sure;    ///< of the bins before first_bin

    GG_HD bool is_listed(int bin) const {
        return (bin >= first_bin && bin <= last_bin) ||
               (count_needed != 0 && bin >= count_first && bin <= count_bin);
    }
};
/// No id is cut.
GG_HD inline Cut no_cut() {
    return {sampler_bins, 0, 0, 0, 1, 0, 0, 0, 0};
}

/// The cut of a list that begins with the row's first id and has more ids than top-k keeps: nothing is known.
GG_HD inline Cut whole_list(unsigned top_k) {
    return {0, 0, sampler_bins - 1, top_k, 0, sampler_bins - 1, 0, 0, 0};
}

/// The mass that top-p must reach, at least 1: one id is always kept.
GG_HD inline unsigned long long wanted_mass(float top_p, unsigned long long total) {
    const unsigned long long target = text::target_mass(top_p, total);
    return target > 1 ? target : 1;
}

/// One thread's part of find_cut's input.
template <class Block>
GG_HD void load_bins(Block& block, Cells& cells, const SamplerSettings& settings, const SamplerRow& work,
                     int thread) {
    constexpr int each = sampler_bins / Block::threads;
    unsigned count[each];
    unsigned long long mass[each];
    GG_UNROLL
    for (int i = 0; i < each; ++i) {
        count[i] = block.load(work.bin_count + i * Block::threads + thread);
        mass[i] = settings.top_p < 1.0F ? block.load(work.bin_mass + i * Block::threads + thread) : 0;
    }
    GG_UNROLL
    for (int i = 0; i < each; ++i) {
        cells.count[i * Block::threads + thread] = count[i];
        cells.set_mass(i * Block::threads + thread, mass[i]);
    }
}

/// Finds the cut from the bins, which are overwritten; `shared` is no_cut() before. What top-k keeps of the
/// bin it ends in is not known, so neither is the mass that top-p has to reach, but its bounds are, and the
/// bins where they are reached.
template <class Block>
GG_HD Cut find_cut(Block& block, Cells& cells, Cut& shared, const SamplerSettings& settings, int vocabulary) {
    constexpr int each = sampler_bins / Block::threads;
    static_assert(each * Block::threads == sampler_bins);
    const bool by_mass = settings.top_p < 1.0F;
    const unsigned limit = static_cast<unsigned>(
        settings.top_k > 0 && settings.top_k < vocabulary ? settings.top_k : vocabulary);
    // Top-k; masses become sums up to and with the bin.
    block.scan(
        [&](int thread) {
            Tally sum = {0, 0};
            for (int i = 0; i < each; ++i) sum = sum + cells.get(thread * each + i);
            return sum;
        },
        [&](int thread, Tally before) {
            for (int bin = thread * each; bin < (thread + 1) * each; ++bin) {
                const Tally after = before + cells.get(bin);
                if (before.count < limit && limit <= after.count) {
                    shared.count_first = shared.count_bin = bin;
                    shared.count_needed = limit == after.count ? 0 : limit - before.count;
                    shared.mass_before = before.mass;
                    shared.mass_kept = after.mass;
                    shared.sure_end = limit == after.count ? bin + 1 : bin;
                }
                cells.set_mass(bin, after.mass);
                before = after;
            }
        });
    if (!by_mass) return shared;
    const unsigned long long least =
        wanted_mass(settings.top_p, shared.count_needed != 0 ? shared.mass_before : shared.mass_kept);
    const unsigned long long most = wanted_mass(settings.top_p, shared.mass_kept);
    block.phase([&](int thread) {
        GG_ROLLED
        for (int bin = thread; bin < sampler_bins; bin += Block::threads) {
            const unsigned long long before = bin == 0 ? 0 : cells.mass(bin - 1), after = cells.mass(bin);
            if (before < least && least <= after) {
                shared.first_bin = shared.sure_end = bin;
                shared.mass_sure = before;
            }
            if (before < most && most <= after) shared.last_bin = bin;
        }
    });
    return shared;
}

/// Keys that an earlier kernel listed; the first of them are also in shared memory.
struct KeyList {
    const SamplerKey* keys;
    const SamplerKey* staged;
    int count, staged_count;

    /// f(key, i) for each key; called by all threads alike, with key 0 and i = -1 where there is none.
    template <class Block, class F>
    GG_HD void each(Block& block, int thread, F f) const {
        constexpr int batch = 4;  // loads under way at once
        for (int base = 0; base < count; base += batch * Block::threads) {
            SamplerKey key[batch];
            GG_UNROLL
            for (int j = 0; j < batch; ++j) {
                const int i = base + j * Block::threads + thread;
                key[j] = i < staged_count ? staged[i] : i < count ? block.load(keys + i) : 0;
            }
            GG_UNROLL
            for (int j = 0; j < batch; ++j) {
                if (base + j * Block::threads >= count) break;
                const int i = base + j * Block::threads + thread;
                f(key[j], i < count ? i : -1);
            }
        }
    }
};

/// Which keys of a list are looked at, and what they weigh.
struct KeyFilter {
    int first_bin, last_bin;
    SamplerKey lowest;
    float largest, temperature;

    GG_HD bool operator()(SamplerKey key) const {
        if (key == 0 || key < lowest) return false;
        const int bin = logit_bin(text::key_logit(key), largest);
        return bin >= first_bin && bin <= last_bin;
    }
    GG_HD unsigned long long mass(SamplerKey key) const {
        return text::probability_mass(text::scale_logit(text::key_logit(key), largest, temperature));
    }
};

/// The mass of the filtered list.
template <class Block>
GG_HD unsigned long long mass_of(Block& block, const KeyList& list, const KeyFilter& filter) {
    return block.template reduce<unsigned long long>(
        [&](int thread) {
            unsigned long long sum = 0;
            list.each(block, thread, [&](SamplerKey key, int) {
                if (filter(key)) sum += filter.mass(key);
            });
            return sum;
        },
        [](unsigned long long a, unsigned long long b) { return a + b; });
}

/// What select_key needs in shared memory, besides cells.
struct Found {
    int digit;
    Tally before, inside;
};

/// A number such that exactly the first keys of the filtered list are not below it: the first `needed`, or,
/// by mass, the fewest whose mass reaches `needed`. The list must have enough. Radix selection, 10 bits a
/// round, from the highest bit in which keys differ. Equal logits have equal masses, so their ids are
/// counted.
template <class Block>
GG_HD SamplerKey select_key(Block& block, Cells& cells, Found& shared, const KeyList& list,
                            const KeyFilter& filter, bool by_mass, unsigned long long needed) {
    const KeyRange range = block.template reduce<KeyRange>(
        [&](int thread) {
            KeyRange mine = {0, ~0ULL};
            list.each(block, thread, [&](SamplerKey key, int) {
                if (!filter(key)) return;
                mine = {key > mine.first ? key : mine.first, key < mine.last ? key : mine.last};
            });
            return mine;
        },
        [](KeyRange a, KeyRange b) {
            return KeyRange{a.first > b.first ? a.first : b.first, a.last < b.last ? a.last : b.last};
        });
    int shift = 64;  // all keys agree in the bits from here on
    while (shift > 0 && ((range.first ^ range.last) >> (shift - 1)) == 0) --shift;
    SamplerKey prefix = shift == 64 ? 0 : range.first >> shift;
    while (shift > 0) {
        if (by_mass && shift <= 32) {
            const unsigned long long mass = filter.mass(prefix << shift);
            needed = (needed + mass - 1) / mass;
            by_mass = false;
        }
        const int bits = shift < 10 ? shift : 10;
        shift -= bits;
        block.phase([&](int thread) {
            GG_ROLLED
            for (int cell = thread; cell < sampler_bins; cell += Block::threads) cells.clear(cell);
        });
        block.phase([&](int thread) {
            list.each(block, thread, [&](SamplerKey key, int) {
                const bool active = filter(key) && (key >> shift) >> bits == prefix;
                // Cells are in the order: the largest digit first.
                const int cell = sampler_bins - 1 - static_cast<int>((key >> shift) & ((1U << bits) - 1U));
                block.tally(cells, active, cell, active && by_mass ? filter.mass(key) : 0);
            });
        });
        constexpr int each = sampler_bins / Block::threads;
        block.scan(
            [&](int thread) {
                Tally sum = {0, 0};
                for (int i = 0; i < each; ++i) sum = sum + cells.get(thread * each + i);
                return sum;
            },
            [&](int thread, Tally before) {
                for (int cell = thread * each; cell < (thread + 1) * each; ++cell) {
                    const Tally inside = cells.get(cell), after = before + inside;
                    if (by_mass ? before.mass < needed && needed <= after.mass
                                : before.count < needed && needed <= after.count)
                        shared = {sampler_bins - 1 - cell, before, inside};
                    before = after;
                }
            });
        const Found found = shared;
        prefix = prefix << bits | static_cast<unsigned>(found.digit);
        needed -= by_mass ? found.before.mass : found.before.count;
        if (by_mass ? found.inside.count == 1 : found.inside.count == needed) break;
    }
    const SamplerKey lowest = prefix << shift;
    return lowest > range.last ? lowest : range.last;
}

}  // namespace gg::cuda
