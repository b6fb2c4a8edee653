// The start of a step: x[row] = the embedding of the row's token, decoded from the file's own format, plus,
// where positions are learned, the embedding of its position; and cos and sin of the row's position for every
// layer's rotary embedding, angle = position * inverse_frequency, formed in double as on the host.
//
// Rows are described in device memory (decoding), or are consecutive positions of a list of tokens (prefill).
// Bytes moved: a row or two of the tables in, a row of x and head_dim floats out.
#pragma once

#include "gg/cuda/prefill_args.hpp"
#include "gg/cuda/prefill_plan.hpp"
#include "gg/cuda/primitives.cuh"
#include "gg/cuda/rows.hpp"

namespace gg::cuda {

/// For a composition without learned positions.
struct NoPositions {};

/// Launched as embed_launch(). Dims has hidden and head_dim. Format and PositionFormat are of gg::format.
template <class Format, class PositionFormat, class Dims>
struct Embed {
    using Args = EmbedArgs;

    static constexpr int threads = embed_threads;
    static constexpr int shared_bytes = 0;

    __device__ static void run(const Args& args) {
        launch_next();
        wait_for_previous();
        const int row = blockIdx.x;
        const int token = args.rows ? load_cg(&args.rows[row].token) : load_cg(args.tokens + row);
        const int position = args.rows ? load_cg(&args.rows[row].position) : args.start + row;
        float* x = args.x + static_cast<Size>(row) * hidden;
        for (int chunk = threadIdx.x; chunk < chunks; chunk += threads) {
            float values[32];
            decode<Format>(args.tokens_table, token, chunk, values);
            if constexpr (has_positions) {
                float more[32];
                decode<PositionFormat>(args.positions_table, position, chunk, more);
#pragma unroll
                for (int i = 0; i < 32; ++i) values[i] += more[i];
            }
#pragma unroll
            for (int i = 0; i < 32; ++i)
                if (hidden % 32 == 0 || 32 * chunk + i < hidden) x[32 * chunk + i] = values[i];
        }
        if (!args.inverse_frequency) return;
        // Threads from the end, which have no chunk of a narrow row.
        for (int i = threads - 1 - static_cast<int>(threadIdx.x); i < half; i += threads) {
            double sine, cosine;
            ::sincos(position * args.inverse_frequency[i], &sine, &cosine);
            args.cosines[static_cast<Size>(row) * half + i] = static_cast<float>(cosine * args.magnitude);
            args.sines[static_cast<Size>(row) * half + i] = static_cast<float>(sine * args.magnitude);
        }
    }

  private:
    static constexpr int hidden = Dims::hidden, half = Dims::head_dim / 2;
    static constexpr int chunks = (hidden + 31) / 32;
    static constexpr bool has_positions = requires {
        PositionFormat::bytes;
    };

    /// 32 elements of a row of a table; those beyond its end are 0.
    template <class Table>
    GG_DEVICE static void decode(const unsigned char* table, int row, int chunk, float (&values)[32]) {
        static_assert(hidden % Table::elements == 0, "a row is a whole number of blocks");
        const unsigned char* bytes =
            table + static_cast<Size>(row) * (static_cast<Size>(hidden) / Table::elements * Table::bytes);
        if constexpr (hidden % 32 == 0) {
            Table::decode_chunk(bytes, chunk, values);
        } else {
            const int rest = hidden - 32 * chunk;
            Table::decode_tail(bytes, chunk, rest < 32 ? rest : 32, values);
        }
    }
};

}  // namespace gg::cuda
