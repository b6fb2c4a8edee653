// Sixteen float32 lanes in the widest registers of one instruction set. Included by host/kernels.hpp once for
// each set, inside its namespace, with GG_LANES_BYTES (a register's bytes) and GG_TARGET (the attribute).
// Sums over lanes use one tree, (i, i + 8), (i, i + 4), (i, i + 2), (i, i + 1), so that every set with a fused
// multiply-add gives the same bits.

typedef float Register __attribute__((vector_size(GG_LANES_BYTES)));
typedef float Quad __attribute__((vector_size(16)));

inline constexpr int lanes = 16;
inline constexpr int registers = 64 / GG_LANES_BYTES;
inline constexpr int register_lanes = GG_LANES_BYTES / 4;

struct Lanes {
    Register part[registers];
};

GG_TARGET GG_INLINE Lanes load(const float* p) {
    Lanes r;
    for (int i = 0; i < registers; ++i) __builtin_memcpy(&r.part[i], p + i * register_lanes, sizeof(Register));
    return r;
}

GG_TARGET GG_INLINE void store(float* p, const Lanes& a) {
    for (int i = 0; i < registers; ++i) __builtin_memcpy(p + i * register_lanes, &a.part[i], sizeof(Register));
}

GG_TARGET GG_INLINE Lanes broadcast(float x) {
    Lanes r;
    for (int i = 0; i < registers; ++i) r.part[i] = x - Register{};
    return r;
}

GG_TARGET GG_INLINE Lanes add(const Lanes& a, const Lanes& b) {
    Lanes r;
    for (int i = 0; i < registers; ++i) r.part[i] = a.part[i] + b.part[i];
    return r;
}

GG_TARGET GG_INLINE Lanes multiply(const Lanes& a, const Lanes& b) {
    Lanes r;
    for (int i = 0; i < registers; ++i) r.part[i] = a.part[i] * b.part[i];
    return r;
}

/// a * b + c, fused where the set has it.
GG_TARGET GG_INLINE Lanes multiply_add(const Lanes& a, const Lanes& b, const Lanes& c) {
    Lanes r;
    for (int i = 0; i < registers; ++i) {
#if GG_LANES_BYTES == 64
        r.part[i] = (Register)_mm512_fmadd_ps((__m512)a.part[i], (__m512)b.part[i], (__m512)c.part[i]);
#elif GG_LANES_BYTES == 32
        r.part[i] = (Register)_mm256_fmadd_ps((__m256)a.part[i], (__m256)b.part[i], (__m256)c.part[i]);
#else
        r.part[i] = a.part[i] * b.part[i] + c.part[i];
#endif
    }
    return r;
}

/// The first two levels of the tree: lanes (i, i + 8), then (i, i + 4).
GG_TARGET GG_INLINE Quad fold(const Lanes& a) {
    alignas(64) float s[lanes];
    store(s, a);
    Quad q[4];
    __builtin_memcpy(q, s, sizeof q);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/// The sum of the lanes.
GG_TARGET GG_INLINE float sum(const Lanes& a) {
    const Quad q = fold(a);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/// The sums of four, by the same tree.
GG_TARGET GG_INLINE Quad sum4(const Lanes& a, const Lanes& b, const Lanes& c, const Lanes& d) {
    const Quad qa = fold(a), qb = fold(b), qc = fold(c), qd = fold(d);
#if defined(__SSE__)
    const Quad ab_low = (Quad)_mm_movelh_ps((__m128)qa, (__m128)qb);   // a0 a1 b0 b1
    const Quad ab_high = (Quad)_mm_movehl_ps((__m128)qb, (__m128)qa);  // a2 a3 b2 b3
    const Quad cd_low = (Quad)_mm_movelh_ps((__m128)qc, (__m128)qd);
    const Quad cd_high = (Quad)_mm_movehl_ps((__m128)qd, (__m128)qc);
    const Quad ab = ab_low + ab_high, cd = cd_low + cd_high;
    return (Quad)_mm_shuffle_ps((__m128)ab, (__m128)cd, 0x88) + (Quad)_mm_shuffle_ps((__m128)ab, (__m128)cd, 0xDD);
#else
    const Quad r = {(qa[0] + qa[2]) + (qa[1] + qa[3]), (qb[0] + qb[2]) + (qb[1] + qb[3]),
                    (qc[0] + qc[2]) + (qc[1] + qc[3]), (qd[0] + qd[2]) + (qd[1] + qd[3])};
    return r;
#endif
}

/// The largest lane.
GG_TARGET GG_INLINE float largest(const Lanes& a) {
    alignas(64) float s[lanes];
    store(s, a);
    float best = s[0];
    for (int i = 1; i < lanes; ++i) best = s[i] > best ? s[i] : best;
    return best;
}

GG_TARGET GG_INLINE Lanes larger(const Lanes& a, const Lanes& b) {
    Lanes r;
    for (int i = 0; i < registers; ++i) r.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
    return r;
}
