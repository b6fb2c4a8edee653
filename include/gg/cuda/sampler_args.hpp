// What the sampler's kernels are given: the state of one sequence in device memory, the workspace, and the
// arguments of a launch. Plain structs, the same on host and device. Includes nothing from the system.
//
// Workspace of a row, for a vocabulary of V ids (16 bytes an id; nothing in it has to be initialised):
//   listed_count, slices_done   one each
//   masses       mass [short]   probability masses of the first listed ids
//   bin_mass     sums of probability masses; bin_count: ids; a bin is a range of logits
//   slice_first  key [slices]   first id in the order, of each slice
//   slice_draw   key [slices]   largest draw among the ids that are surely kept, of each slice
//   logits       float [V]      after the penalty, blocked ids -infinity
//   scores       unsigned [V]   the draws of the listed ids
//   listed       key [V]        ids that may be kept, or that are on the edge of what is
#pragma once

#include "gg/cuda/rows.hpp"

namespace gg::cuda {

/// What the host learns of a draw.
struct Drawn {
    int id;         ///< below 0: a SamplerStatus
    int overflows;  ///< activations beyond FP16 so far
};

/// Draws of a sequence that the host may not have looked at yet.
inline constexpr int drawn_slots = 8;

/// How the next token is chosen: the fields of gg::text::SamplerOptions, checked there, and what lies in
/// device memory. Written only by copies: the kernels read it before their predecessor has ended.
struct SamplerSettings {
    float temperature;
    int top_k;
    float top_p;
    float min_p;
    float repeat_penalty;
    int repeat_window;
    unsigned long long seed;
    const unsigned* blocked;  ///< bit id % 32 of word id / 32: the id is never drawn; null: none is blocked
    int* recent;              ///< [repeat_window], ring of the last accepted ids; may be null if unused
    Drawn* drawn;             ///< [drawn_slots] in host memory, slot calls % drawn_slots; may be null
};

/// The sampler of one sequence, in device memory. A new or reset one has counts of 0.
struct SamplerState {
    SamplerSettings settings;
    unsigned long long step;      ///< ids drawn
    unsigned long long accepted;  ///< ids accepted, unless the penalty is off
    unsigned long long calls;     ///< ids drawn and failures
};

/// A launch: one draw for each row, from its logits by its state.
struct SamplerArgs {
    Row* rows;  ///< [used_rows]
    int used_rows;
    int vocabulary;
    unsigned char* workspace;  ///< sampler_workspace_bytes(vocabulary, used_rows), aligned to 256
    const int* overflows;      ///< counts activations beyond FP16
    int append;  ///< not 0: a drawn id is accepted, and becomes the row's token at the next position
};

/// Tokens for the history of one sequence.
struct SamplerAcceptArgs {
    SamplerState* state;
    const int* tokens;  ///< [count], ids of the vocabulary; one alone may be a SamplerStatus, and is left out
    int count;
};

/// What an id below 0 says.
enum SamplerStatus : int {
    sampler_all_infinite = -1,  ///< every logit that may be drawn is -infinity
    sampler_nan = -2            ///< sampler_nan - id: the logit of this id, the lowest such, is a NaN
};

/// Most ids that one block of the grid looks at.
inline constexpr int sampler_largest_slice = 2048;
/// Bins of logits.
inline constexpr int sampler_bins = 1024;
/// Ids in a list that is looked at pair by pair, and most first ids of slices that give a threshold.
inline constexpr int sampler_short_list = 128;

/// Ids that one block of the grid looks at, as a power of two: a small vocabulary also has many slices, since
/// their first ids say where top-k may end.
GG_HD constexpr int sampler_slice_bits(int vocabulary) {
    return vocabulary > 1 << 17 ? 11 : vocabulary > 1 << 16 ? 10 : vocabulary > 1 << 15 ? 9 : 8;
}
GG_HD constexpr int sampler_slices(int vocabulary) {
    const int bits = sampler_slice_bits(vocabulary);
    return (vocabulary + (1 << bits) - 1) >> bits;
}

/// Pointers into the workspace of one row.
struct SamplerRow {
    unsigned* listed_count;
    unsigned* slices_done;
    unsigned long long* masses;
    unsigned long long* bin_mass;
    unsigned* bin_count;
    unsigned long long* slice_first;
    unsigned long long* slice_draw;
    float* logits;
    unsigned* scores;
    unsigned long long* listed;
};

namespace detail {

/// Where each part of a row begins, and last the bytes of a row. What has a fixed size comes first, so that
/// few addresses have to be computed; each part begins at a multiple of 256.
struct SamplerLayout {
    static constexpr unsigned masses = 256, bin_mass = masses + 8 * sampler_short_list,
                              bin_count = bin_mass + 8 * sampler_bins,
                              slice_first = bin_count + 4 * sampler_bins;
    unsigned long long slice_draw, logits, scores, listed, bytes;
};

GG_HD constexpr SamplerLayout sampler_layout(int vocabulary) {
    // What is looked at pair by pair is read without knowing how much of it there is.
    const int least = vocabulary > sampler_short_list ? vocabulary : sampler_short_list;
    const auto ids = static_cast<unsigned>(least + 63) / 64 * 64;
    const auto slices = static_cast<unsigned>(sampler_slices(vocabulary) + 31) / 32 * 32;
    SamplerLayout at{};
    at.slice_draw = SamplerLayout::slice_first + 8ULL * slices;
    at.logits = at.slice_draw + 8ULL * slices;
    at.scores = at.logits + 4ULL * ids;
    at.listed = at.scores + 4ULL * ids;
    at.bytes = at.listed + 8ULL * ids;
    return at;
}

}  // namespace detail

/// Bytes of workspace that sampling takes.
GG_HD constexpr unsigned long long sampler_workspace_bytes(int vocabulary, int rows) {
    return detail::sampler_layout(vocabulary).bytes * static_cast<unsigned long long>(rows);
}

GG_HD inline SamplerRow sampler_row(const SamplerArgs& args, int row) {
    const detail::SamplerLayout at = detail::sampler_layout(args.vocabulary);
    unsigned char* base = args.workspace + at.bytes * static_cast<unsigned long long>(row);
    return {reinterpret_cast<unsigned*>(base),
            reinterpret_cast<unsigned*>(base + 4),
            reinterpret_cast<unsigned long long*>(base + at.masses),
            reinterpret_cast<unsigned long long*>(base + at.bin_mass),
            reinterpret_cast<unsigned*>(base + at.bin_count),
            reinterpret_cast<unsigned long long*>(base + at.slice_first),
            reinterpret_cast<unsigned long long*>(base + at.slice_draw),
            reinterpret_cast<float*>(base + at.logits),
            reinterpret_cast<unsigned*>(base + at.scores),
            reinterpret_cast<unsigned long long*>(base + at.listed)};
}

}  // namespace gg::cuda
