// What the sampler's kernels are given: the state of one sequence in device memory, the workspace, and the
// arguments of a launch. Plain structs, the same on host and device. Includes nothing from the system.
//
// Workspace of a row, for a vocabulary of V ids (16 bytes an id; nothing in it has to be initialised):
//   logits       float [V]      after the penalty, blocked ids -infinity
//   listed       key [V]        ids on the edge of what is kept
//   scores       unsigned [V]   their draws
//   slice_first  key [slices]   first id in the order, of each slice
//   slice_draw   key [slices]   largest draw among the ids that are surely kept, of each slice
//   bin_mass     sums of probability masses; bin_count: ids; a bin is a range of logits
//   cut, listed_count   one each
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

/// Ids that one block of the grid looks at.
inline constexpr int sampler_slice = 2048;
/// Bins of logits.
inline constexpr int sampler_bins = 1024;

GG_HD constexpr int sampler_slices(int vocabulary) {
    return (vocabulary + sampler_slice - 1) / sampler_slice;
}

struct Cut;  // sampler_selection.hpp

/// Pointers into the workspace of one row.
struct SamplerRow {
    float* logits;
    unsigned long long* listed;
    unsigned* scores;
    unsigned long long* slice_first;
    unsigned long long* slice_draw;
    unsigned long long* bin_mass;
    unsigned* bin_count;
    unsigned* listed_count;
    Cut* cut;
};

namespace detail {

GG_HD constexpr unsigned long long align_256(unsigned long long bytes) {
    return (bytes + 255) / 256 * 256;
}

/// Where each part of a row begins, and last the bytes of a row.
struct SamplerLayout {
    unsigned long long listed, scores, slice_first, slice_draw, bin_mass, bin_count, listed_count, cut, bytes;
};

GG_HD constexpr SamplerLayout sampler_layout(int vocabulary) {
    const auto ids = static_cast<unsigned long long>(vocabulary);
    const auto slices = static_cast<unsigned long long>(sampler_slices(vocabulary));
    SamplerLayout at{};
    at.listed = align_256(4 * ids);
    at.scores = at.listed + align_256(8 * ids);
    at.slice_first = at.scores + align_256(4 * ids);
    at.slice_draw = at.slice_first + align_256(8 * slices);
    at.bin_mass = at.slice_draw + align_256(8 * slices);
    at.bin_count = at.bin_mass + 8 * sampler_bins;
    at.listed_count = at.bin_count + 4 * sampler_bins;
    at.cut = at.listed_count + 64;
    at.bytes = at.listed_count + 256;
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
    return {reinterpret_cast<float*>(base),
            reinterpret_cast<unsigned long long*>(base + at.listed),
            reinterpret_cast<unsigned*>(base + at.scores),
            reinterpret_cast<unsigned long long*>(base + at.slice_first),
            reinterpret_cast<unsigned long long*>(base + at.slice_draw),
            reinterpret_cast<unsigned long long*>(base + at.bin_mass),
            reinterpret_cast<unsigned*>(base + at.bin_count),
            reinterpret_cast<unsigned*>(base + at.listed_count),
            reinterpret_cast<Cut*>(base + at.cut)};
}

}  // namespace gg::cuda
