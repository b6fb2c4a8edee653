// Matrix products as dot products of rows: out[t][r] = sum_k weight[r][k] x[t][k] (+ bias[r]).
//
// Lane j of an accumulator sums k = j, j + 16, j + 32, ... in this order, whatever the number of rows, tokens
// or threads, and whether the weights are decoded on the fly or in a panel first: the same bits every time.
// Rows of x are padded with zeros to a multiple of 32. Included by host/kernels.hpp for each instruction set.

/// A panel's rows: float32, already decoded, padded to whole chunks.
struct Decoded {
    static constexpr int elements = 32;
};

/// One chunk of 32 weights; `index` may be the incomplete last chunk of a row of a float type.
template <class Format>
GG_TARGET GG_INLINE void decode_any_chunk(const unsigned char* row, int index, int columns, float* out) {
    if constexpr (Format::elements == 1) {
        if (columns - index * 32 < 32) return Format::decode_tail(row, index, columns - index * 32, out);
    }
    Format::template decode_chunk<DecodeTarget>(row, index, out);
}

/// Asks for weights that are some rows ahead: the processor's own prefetchers stop at each 4 KiB page of the
/// mapped file. 8 KiB ahead was the best of 0.5 to 16 KiB (Q4_1, AMD EPYC 9005: 2.2 times as fast as none).
template <class Format>
GG_TARGET GG_INLINE void prefetch_ahead(const unsigned char* row, int index) {
    constexpr std::size_t distance = 8192;
    __builtin_prefetch(row + distance + static_cast<std::size_t>(index) * (32 * Format::bytes / Format::elements));
}

/// Adds one chunk's 32 products to each of R x T accumulators.
template <int R, int T>
GG_TARGET GG_INLINE void accumulate_chunk(const float* const (&weights)[R], const float* x, std::size_t x_stride,
                                          Lanes (&sums)[T][R]) {
#pragma GCC unroll 2
    for (int half = 0; half < 32; half += lanes) {
        Lanes w[R];
        for (int r = 0; r < R; ++r) w[r] = load(weights[r] + half);
        for (int t = 0; t < T; ++t) {
            const Lanes v = load(x + static_cast<std::size_t>(t) * x_stride + half);
            for (int r = 0; r < R; ++r) sums[t][r] = multiply_add(w[r], v, sums[t][r]);
        }
    }
}

/// R rows (1 or 4) of weights against T rows of x. `out` points to the first of R consecutive outputs of the
/// first row of x; `bias` [R] may be null.
template <class Format, int R, int T>
GG_TARGET void dot_tile(const unsigned char* weight, std::size_t row_bytes, int columns, const float* x,
                        std::size_t x_stride, const float* bias, float* out, std::size_t out_stride) {
    Lanes sums[T][R] = {};
    const int chunks = (columns + 31) / 32;
    for (int c = 0; c < chunks; ++c) {
        const float* chunk[R];
        alignas(64) float decoded[R][32];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const unsigned char* row = weight + static_cast<std::size_t>(r) * row_bytes;
            if constexpr (std::is_same_v<Format, Decoded>) {
                chunk[r] = reinterpret_cast<const float*>(row) + c * 32;
            } else {
                if constexpr (T == 1) prefetch_ahead<Format>(row, c);
                decode_any_chunk<Format>(row, c, columns, decoded[r]);
                chunk[r] = decoded[r];
            }
        }
        accumulate_chunk<R, T>(chunk, x + c * 32, x_stride, sums);
    }
    for (int t = 0; t < T; ++t) {
        float* y = out + static_cast<std::size_t>(t) * out_stride;
        if constexpr (R == 4) {
            Quad total = sum4(sums[t][0], sums[t][1], sums[t][2], sums[t][3]);
            if (bias) {
                Quad b;
                __builtin_memcpy(&b, bias, sizeof b);
                total = total + b;
            }
            __builtin_memcpy(y, &total, sizeof total);
        } else {
            for (int r = 0; r < R; ++r) y[r] = bias ? sum(sums[t][r]) + bias[r] : sum(sums[t][r]);
        }
    }
}

/// `rows` rows of weights against one row of x, decoded on the fly.
template <class Format>
GG_TARGET void dot_rows(const unsigned char* weight, std::size_t row_bytes, int rows, int columns, const float* x,
                        const float* bias, float* out) {
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        dot_tile<Format, 4, 1>(weight + static_cast<std::size_t>(r) * row_bytes, row_bytes, columns, x, 0,
                               bias ? bias + r : nullptr, out + r, 0);
    for (; r < rows; ++r)
        dot_tile<Format, 1, 1>(weight + static_cast<std::size_t>(r) * row_bytes, row_bytes, columns, x, 0,
                               bias ? bias + r : nullptr, out + r, 0);
}

/// Decodes `rows` rows into a panel whose rows are `stride` floats apart.
template <class Format>
GG_TARGET void decode_panel(const unsigned char* weight, std::size_t row_bytes, int rows, int columns, float* panel,
                            std::size_t stride) {
    const int chunks = (columns + 31) / 32;
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < chunks; ++c)
            decode_any_chunk<Format>(weight + static_cast<std::size_t>(r) * row_bytes, c, columns,
                                     panel + static_cast<std::size_t>(r) * stride + c * 32);
}

/// All rows of a decoded panel against T rows of x.
template <int T>
GG_TARGET void multiply_panel_rows(const float* panel, std::size_t stride, int rows, int columns, const float* x,
                                   std::size_t x_stride, const float* bias, float* out, std::size_t out_stride) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(panel);
    const std::size_t row_bytes = stride * sizeof(float);
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        dot_tile<Decoded, 4, T>(bytes + static_cast<std::size_t>(r) * row_bytes, row_bytes, columns, x, x_stride,
                                bias ? bias + r : nullptr, out + r, out_stride);
    for (; r < rows; ++r)
        dot_tile<Decoded, 1, T>(bytes + static_cast<std::size_t>(r) * row_bytes, row_bytes, columns, x, x_stride,
                                bias ? bias + r : nullptr, out + r, out_stride);
}

/// A decoded panel against `tokens` rows of x.
GG_TARGET inline void multiply_panel(const float* panel, std::size_t stride, int rows, int columns, const float* x,
                                     std::size_t x_stride, int tokens, const float* bias, float* out,
                                     std::size_t out_stride) {
    constexpr int tile = registers == 1 ? 6 : 2;  // what the set's registers hold beside the weights
    int t = 0;
    for (; t + tile <= tokens; t += tile)
        multiply_panel_rows<tile>(panel, stride, rows, columns, x + static_cast<std::size_t>(t) * x_stride, x_stride,
                                  bias, out + static_cast<std::size_t>(t) * out_stride, out_stride);
    for (; t < tokens; ++t)
        multiply_panel_rows<1>(panel, stride, rows, columns, x + static_cast<std::size_t>(t) * x_stride, x_stride,
                               bias, out + static_cast<std::size_t>(t) * out_stride, out_stride);
}
