// Attention of a few query heads that share one key head, for one row. Included by host/kernels.hpp for each
// instruction set.
//
// Keys lie in tiles of 16 positions, [tile][head_dim][16], so that a tile's 16 scores need no sum over lanes;
// values lie in rows, [position][value_stride]. Both are rings of `capacity` positions, a multiple of 16.
// Tiles are those of absolute positions, scores are summed over the dimensions in order, the denominator by
// lanes tile after tile, and values key after key: the bits do not depend on how a prompt was cut in pieces.

/// Scores of N tiles from `tile` on (they lie one behind the other in the ring).
template <int G, int N>
GG_TARGET GG_INLINE void score_tiles(const Attend& a, const float* keys, float* scores) {
    Lanes sums[N][G] = {};
    for (int d = 0; d < a.head_dim; ++d) {
        Lanes k[N];
        for (int n = 0; n < N; ++n) k[n] = load(keys + (static_cast<std::size_t>(n) * a.head_dim + d) * lanes);
        for (int g = 0; g < G; ++g) {
            const Lanes q = broadcast(a.query[g * a.head_dim + d]);
            for (int n = 0; n < N; ++n) sums[n][g] = multiply_add(q, k[n], sums[n][g]);
        }
    }
    const Lanes scale = broadcast(a.scale);
    for (int n = 0; n < N; ++n)
        for (int g = 0; g < G; ++g) store(scores + g * a.score_stride + n * lanes, multiply(sums[n][g], scale));
}

/// All scores of tiles [tile0, tile1), keys outside first .. last masked.
template <int G>
GG_TARGET GG_INLINE void score_all(const Attend& a, long tile0, long tile1) {
    constexpr int step = G == 1 ? 4 : 2;
    const long ring = a.capacity / lanes;
    const std::size_t tile_floats = static_cast<std::size_t>(a.head_dim) * lanes;
    for (long tile = tile0; tile < tile1;) {
        const long slot = tile % ring;
        float* scores = a.scores + (tile - tile0) * lanes;
        if (tile + step <= tile1 && slot + step <= ring) {
            score_tiles<G, step>(a, a.keys + static_cast<std::size_t>(slot) * tile_floats, scores);
            tile += step;
        } else {
            score_tiles<G, 1>(a, a.keys + static_cast<std::size_t>(slot) * tile_floats, scores);
            tile += 1;
        }
    }
    for (int g = 0; g < G; ++g) {
        float* scores = a.scores + g * a.score_stride;
        for (long j = tile0 * lanes; j < a.first; ++j) scores[j - tile0 * lanes] = -infinity();
        for (long j = a.last + 1; j < tile1 * lanes; ++j) scores[j - tile0 * lanes] = -infinity();
    }
}

/// Turns one head's scores into exp(score - m) in place; returns 1 / denominator.
GG_TARGET inline float soften(float* scores, long count, const float* sink) {
    Lanes top = broadcast(-infinity());
    for (long j = 0; j < count; j += lanes) top = larger(load(scores + j), top);
    float m = largest(top);
    if (sink && *sink > m) m = *sink;
    for (long j = 0; j < count; ++j) scores[j] = exp(scores[j] - m);
    Lanes total = {};
    for (long j = 0; j < count; j += lanes) total = add(total, load(scores + j));
    return 1.0f / (sum(total) + (sink ? exp(*sink - m) : 0.0f));
}

/// Weighted sum of 16 * N dimensions of the values from dimension d0 on.
template <int G, int N>
GG_TARGET GG_INLINE void sum_values(const Attend& a, long origin, int d0, const float (&inverse)[G]) {
    Lanes sums[G][N] = {};
    long slot = a.first % a.capacity;
    for (long j = a.first; j <= a.last; ++j) {
        const float* v = a.values + static_cast<std::size_t>(slot) * a.value_stride + d0;
        Lanes row[N];
        for (int n = 0; n < N; ++n) row[n] = load(v + n * lanes);
        for (int g = 0; g < G; ++g) {
            const Lanes p = broadcast(a.scores[g * a.score_stride + (j - origin)]);
            for (int n = 0; n < N; ++n) sums[g][n] = multiply_add(p, row[n], sums[g][n]);
        }
        if (++slot == a.capacity) slot = 0;
    }
    for (int g = 0; g < G; ++g) {
        alignas(64) float result[N * lanes];
        for (int n = 0; n < N; ++n) store(result + n * lanes, multiply(sums[g][n], broadcast(inverse[g])));
        const int count = a.head_dim - d0 < N * lanes ? a.head_dim - d0 : N * lanes;
        for (int d = 0; d < count; ++d) a.out[g * a.head_dim + d0 + d] = result[d];
    }
}

/// One row, G heads.
template <int G>
GG_TARGET void attend(const Attend& a) {
    const long tile0 = a.first / lanes, tile1 = a.last / lanes + 1;
    score_all<G>(a, tile0, tile1);
    float inverse[G];
    for (int g = 0; g < G; ++g)
        inverse[g] = soften(a.scores + g * a.score_stride, (tile1 - tile0) * lanes, a.sink ? a.sink + g : nullptr);
    int d = 0;
    for (; d + 4 * lanes <= a.value_stride; d += 4 * lanes) sum_values<G, 4>(a, tile0 * lanes, d, inverse);
    for (; d < a.value_stride; d += lanes) sum_values<G, 1>(a, tile0 * lanes, d, inverse);
}
