// Attention on a GPU against double. The reference gets the same FP16 keys and values (and, for prefill,
// queries), so that what is left is
//   scores    FP32 sums of head_dim products: (2 head_dim + 32) 2^-23 of the sum of magnitudes A, in units of
//             log2, which also covers queries as two FP16 parts (2^-22) and the policies in FP32, and
//             14 2^-23 for 2^x's argument; weights are then wrong by the factor 1 + ln2 that + 2^-21
//   weights   one rounding to FP16 in prefill (2^-11, and 2^-39 of the largest weight), two parts in decoding
//             (2^-22)
//   sums      over n keys: n / 8 + 64 additions of 2^-23 each, in values and denominator
//   operand   2^-11 as FP16, 2^-16 as two BF16
// Values are heavy-tailed, so that one key too many or too few is far outside. Keys and values that
// AppendKeys writes may be wrong by 2^-11 and the policies' FP32 rounding, and DecodeAttention must append
// the same bits.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <type_traits>
#include <vector>

#include "cuda/launch.cuh"
#include "gg/block/rms_norm.hpp"
#include "gg/cuda/attention_append.cuh"
#include "gg/cuda/attention_decode.cuh"
#include "gg/cuda/attention_prefill.cuh"
#include "gg/cuda/attention_prefill_warpgroup.cuh"
#include "gg/format/bytes.hpp"
#include "gg/format/encode_floats.hpp"

using cuda_test::DeviceArray;
using cuda_test::launch_and_wait;
namespace cuda = gg::cuda;
using Bits = std::vector<unsigned short>;
using Random = std::mt19937;

namespace attention_test {

constexpr double unit = 0x1p-23;
constexpr unsigned short poison = 0x7E55;  // a NaN

template <int heads_, int kv_heads_, int head_dim_, int window_ = 0, int chunk_ = 512>
struct AttentionDims {
    static constexpr float norm_epsilon = 1e-5f;
    static constexpr int heads = heads_, kv_heads = kv_heads_, head_dim = head_dim_, window = window_;
    static constexpr int prefill_chunk = chunk_;
};

/// A user's policy: the RMS norm of each query and key head.
struct QkNorm : gg::AttentionPolicy {
    template <class Store>
    struct Weights {
        typename Store::Vector query_gain, key_gain;
    };

    template <class Weights, class Dims>
    GG_HD GG_INLINE static void transform(const Weights& w, const Dims& dims, const gg::HeadPlace& head,
                                          float* x) {
        float squares = 0.0f;
        for (int i = 0; i < dims.head_dim; ++i) squares += x[i] * x[i];
        const float scale = gg::RmsNorm::scale(squares, dims.head_dim, dims.norm_epsilon);
        const auto& gain = head.is_key ? w.key_gain : w.query_gain;
        for (int i = 0; i < dims.head_dim; ++i) x[i] *= scale * gain[i];
    }
};

using Plain = gg::Attention<gg::FusedQkv, gg::Bias>;
using Llama = gg::Attention<gg::Rope>;
using GptOss = gg::Attention<gg::YarnRope, gg::Sinks, gg::SlidingWindow, gg::Bias>;
using Normed = gg::Attention<QkNorm, gg::HalfSplitRope, gg::Sinks>;

std::vector<float> random_floats(Random& random, std::size_t count, float deviation = 1.0f) {
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

double half_double(unsigned short bits) {
    return double(gg::format::half_to_float(bits));
}
double bfloat_double(unsigned short bits) {
    return double(gg::float_from_bits(unsigned(bits) << 16));
}

/// The value of element `i` of an operand.
template <class Operand>
double operand_value(const Bits& bits, std::size_t plane, std::size_t i) {
    return Operand::planes == 1 ? half_double(bits[i])
                                : bfloat_double(bits[i]) + bfloat_double(bits[plane + i]);
}

/// How far an operand may lie from the value that it holds.
template <class Operand>
double operand_rounding(double value) {
    return Operand::planes == 1 ? value * 0x1p-11 + 0x1p-25 : value * 0x1p-16 + 0x1p-120;
}

std::size_t size(long long n) {
    return static_cast<std::size_t>(n);
}

/// A block's weights, and cosines and sines of any position.
template <class Dims, class Block>
struct Fixture {
    using Weights = typename Block::template Weights<cuda::CudaStore>;
    static constexpr int head_dim = Dims::head_dim, half = head_dim / 2;
    static constexpr int stride = cuda::head_stride(head_dim);
    static constexpr cuda::QkvColumns columns = cuda::qkv_columns(Dims::heads, Dims::kv_heads, head_dim);
    static constexpr bool normed = requires(Weights w) { w.query_gain; };

    Random random;
    std::vector<float> sinks, query_gain, key_gain;
    DeviceArray<float> device_sinks, device_query_gain, device_key_gain;

    explicit Fixture(unsigned seed)
        : random(seed),
          sinks(random_floats(random, Dims::heads, 2.0f)),
          query_gain(random_floats(random, head_dim)),
          key_gain(random_floats(random, head_dim)),
          device_sinks(sinks),
          device_query_gain(query_gain),
          device_key_gain(key_gain) {}

    Weights weights() const {
        Weights w{};
        if constexpr (Block::has_sinks) w.sink.data = device_sinks.data();
        if constexpr (normed) {
            w.query_gain.data = device_query_gain.data();
            w.key_gain.data = device_key_gain.data();
        }
        return w;
    }

    /// Of the rows at these positions: [rows][half].
    static std::vector<float> table(const std::vector<int>& positions, bool sine) {
        std::vector<float> values;
        for (const int position : positions)
            for (int i = 0; i < half; ++i) {
                const double angle = position * std::pow(0.5, i * 16.0 / std::max(1, half));
                values.push_back(static_cast<float>(1.25 * (sine ? std::sin(angle) : std::cos(angle))));
            }
        if (values.empty()) values.push_back(0.0f);
        return values;
    }

    /// A product's rows; between the parts, where nobody may look, NaN.
    std::vector<float> product(int rows) {
        std::vector<float> values(size(rows) * columns.width, std::nanf(""));
        for (int row = 0; row < rows; ++row)
            for (const auto& [at, count] : {std::pair(0, Dims::heads), std::pair(columns.k, Dims::kv_heads),
                                            std::pair(columns.v, Dims::kv_heads)}) {
                const auto some = random_floats(random, size(count) * head_dim, 1.5f);
                std::copy(some.begin(), some.end(),
                          values.begin() + static_cast<long>(size(row) * columns.width) + at);
            }
        return values;
    }

    /// A query or key head in double after the policies, and the magnitudes that its rounding errors scale
    /// with.
    struct Head {
        std::vector<double> value, magnitude;
    };
    Head head(const float* x, bool is_key, int position) const {
        Head h{std::vector<double>(x, x + head_dim), {}};
        if constexpr (normed) {
            double squares = 0;
            for (const double v : h.value) squares += v * v;
            const double scale = 1.0 / std::sqrt(squares / head_dim + Dims::norm_epsilon);
            for (int i = 0; i < head_dim; ++i)
                h.value[size(i)] *= scale * (is_key ? key_gain : query_gain)[size(i)];
        }
        for (const double v : h.value) h.magnitude.push_back(std::fabs(v));
        Block::with_rotary([&](auto policy) {
            const bool adjacent = std::is_same_v<decltype(policy), gg::Rope>;
            const auto cosines = table({position}, false), sines = table({position}, true);
            for (int i = 0; i < half; ++i) {
                const std::size_t a = size(adjacent ? 2 * i : i), b = size(adjacent ? 2 * i + 1 : i + half);
                const double x1 = h.value[a], x2 = h.value[b];
                const double c = cosines[size(i)], s = sines[size(i)];
                h.value[a] = x1 * c - x2 * s;
                h.value[b] = x2 * c + x1 * s;
                h.magnitude[a] = std::fabs(x1 * c) + std::fabs(x2 * s);
                h.magnitude[b] = std::fabs(x2 * c) + std::fabs(x1 * s);
            }
        });
        return h;
    }
};

/// The cache of one sequence around one layer: one full and one sliding layer before it, and a guard behind.
template <class Dims>
struct Sequence {
    static constexpr int stride = cuda::head_stride(Dims::head_dim);

    int capacity;
    cuda::LayerPlace place;
    Bits bits;

    Sequence(int positions, int window)
        : capacity(positions), place{1, Dims::window > 0 ? 1 : 0, window}, bits(count(positions), poison) {}

    static std::size_t count(int positions) { return size(3) * 2 * positions * Dims::kv_heads * stride + 64; }
    /// Offset of a key's or value's first element.
    std::size_t at(int kv_head, int position, bool value) const {
        auto* const base = const_cast<unsigned short*>(bits.data());
        const auto cache = cuda::layer_cache<Dims>(reinterpret_cast<unsigned char*>(base), capacity, place);
        return size((value ? cache.values : cache.keys) - base) +
               (size(kv_head) * cache.positions + size(position % cache.positions)) * stride;
    }
    double element(int kv_head, int position, bool value, int d) const {
        return half_double(bits[at(kv_head, position, value) + size(d)]);
    }
    /// Appends random keys and values [begin, end); every sixteenth value is a hundred times as large.
    void fill(Random& random, int begin, int end) {
        std::normal_distribution<float> normal(0.0f, 1.0f);
        for (int position = begin; position < end; ++position)
            for (int kv_head = 0; kv_head < Dims::kv_heads; ++kv_head)
                for (const bool value : {false, true}) {
                    const float factor = value && random() % 16 == 0 ? 100.0f : 1.0f;
                    for (int d = 0; d < stride; ++d)
                        bits[at(kv_head, position, value) + size(d)] =
                            d < Dims::head_dim ? gg::format::float_to_half(normal(random) * factor) : 0;
                }
    }
};

/// One head's attention in double. `weight_error` is the rounding of the weights.
template <class Dims>
struct Reference {
    std::vector<double> value, bound;

    Reference(const Sequence<Dims>& sequence, const std::vector<double>& query,
              const std::vector<double>& magnitude, int head, int position, const float* sink,
              double weight_error)
        : value(Dims::head_dim), bound(Dims::head_dim) {
        const int kv_head = head / (Dims::heads / Dims::kv_heads), window = sequence.place.window;
        const int first = window > 0 ? std::max(0, position - window + 1) : 0, keys = position + 1 - first;
        const double scale = 1.0 / std::sqrt(double(Dims::head_dim));
        std::vector<double> scores;
        double largest = sink ? double(*sink) : -1e300, terms = 0, total = 0;
        for (int key = first; key <= position; ++key) {
            double score = 0, term = 0;
            for (int d = 0; d < Dims::head_dim; ++d) {
                const double k = sequence.element(kv_head, key, false, d) * scale;
                score += query[size(d)] * k;
                term += magnitude[size(d)] * std::fabs(k);
            }
            scores.push_back(score);
            largest = std::max(largest, score);
            terms = std::max(terms, term);
        }
        if (sink) total += std::exp(*sink - largest), terms = std::max(terms, double(std::fabs(*sink)));
        for (double& score : scores) total += score = std::exp(score - largest);
        const double log2_error = (terms * 1.4427 * (2 * Dims::head_dim + 32) + 14) * unit;
        const double relative =
            2 * (0.6932 * log2_error + 4 * unit) + weight_error + 2 * (keys / 8 + 64) * unit;
        for (int key = first; key <= position; ++key)
            for (int d = 0; d < Dims::head_dim; ++d) {
                const double v = sequence.element(kv_head, key, true, d);
                const double weight = scores[size(key - first)] / total;
                value[size(d)] += weight * v;
                bound[size(d)] += (weight * relative + 0x1p-39) * std::fabs(v);
            }
    }
};

/// Checks a row of an operand of `rows` rows: values within bounds, padding zero.
template <class Dims, class Operand>
void check_operand_row(const Bits& out, int rows, int row, int head, const Reference<Dims>& reference,
                       int& failures, double& most) {
    const int width = Dims::heads * Dims::head_dim, stride = cuda::operand_stride(width);
    const std::size_t plane = size(rows) * size(stride), begin = size(row) * size(stride);
    for (int d = 0; d < Dims::head_dim; ++d) {
        const double expected = reference.value[size(d)], bound = reference.bound[size(d)];
        const double got = operand_value<Operand>(out, plane, begin + size(head * Dims::head_dim + d));
        const double allowed = bound + operand_rounding<Operand>(std::fabs(expected) + bound);
        const double ratio = std::fabs(got - expected) / allowed;
        if (!(ratio <= 1.0)) ++failures;
        most = std::max(most, ratio);
    }
    if (head == Dims::heads - 1)
        for (int i = width; i < stride; ++i)
            for (int p = 0; p < Operand::planes; ++p)
                if (out[size(p) * plane + begin + size(i)] != 0) ++failures;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Runs AppendKeys for the rows of `product` on the host's copy of a sequence; returns the queries.
template <class Dims, class Block>
Bits append(const Fixture<Dims, Block>& fixture, Sequence<Dims>& sequence, int first,
            const std::vector<float>& product, int expected_overflows = 0) {
    using Stage = cuda::AppendKeys<Dims, Block>;
    const int rows = static_cast<int>(product.size() / size(fixture.columns.width));
    std::vector<int> positions;
    for (int row = 0; row < rows; ++row) positions.push_back(first + row);
    const DeviceArray<float> device_product(product), cosines(fixture.table(positions, false)),
        sines(fixture.table(positions, true));
    const DeviceArray<unsigned short> cache(sequence.bits);
    const DeviceArray<unsigned short> queries(Bits(size(rows) * Dims::heads * fixture.stride + 64, poison));
    const DeviceArray<int> overflows(std::vector<int>{0});
    const bool rotary = Block::has_rotary;
    launch_and_wait<Stage>(
        cuda::append_blocks(Dims::heads, Dims::kv_heads, rows),
        {fixture.weights(), device_product.data(), rotary ? cosines.data() : nullptr,
         rotary ? sines.data() : nullptr, queries.data(), reinterpret_cast<unsigned char*>(cache.data()),
         sequence.capacity, sequence.place, first, rows, overflows.data()});
    CHECK(overflows.read()[0] == expected_overflows);
    sequence.bits = cache.read();
    return queries.read();
}

template <class Dims, class Block>
void check_append(int capacity, int window, int first, int rows) {
    INFO("head_dim " << Dims::head_dim << ", window " << window << ", rows " << rows << " from " << first);
    Fixture<Dims, Block> fixture(static_cast<unsigned>(first + rows));
    Sequence<Dims> sequence(capacity, window);
    sequence.fill(fixture.random, std::max(0, first - 40), first);
    const Sequence<Dims> before = sequence;
    const auto product = fixture.product(rows);
    const Bits queries = append(fixture, sequence, first, product);

    const int head_dim = Dims::head_dim, stride = fixture.stride;
    int failures = 0;
    std::set<std::size_t> written;
    const auto compare = [&](const unsigned short* got, const std::vector<double>& value,
                             const std::vector<double>& magnitude) {
        for (int d = 0; d < stride; ++d) {
            if (d >= head_dim) {
                failures += got[d] != 0;
                continue;
            }
            const double error = std::fabs(half_double(got[d]) - value[size(d)]);
            const double fp32 = magnitude[size(d)] * (head_dim + 16) * 0x1p-24;
            failures += !(error <= (std::fabs(value[size(d)]) + fp32) * 0x1p-11 + 0x1p-25 + fp32);
        }
    };
    for (int row = 0; row < rows; ++row) {
        const float* const x = product.data() + size(row) * fixture.columns.width;
        for (int h = 0; h < Dims::heads; ++h) {
            const auto head = fixture.head(x + h * head_dim, false, first + row);
            compare(queries.data() + (size(row) * Dims::heads + size(h)) * stride, head.value,
                    head.magnitude);
        }
        for (int h = 0; h < Dims::kv_heads; ++h) {
            const auto head = fixture.head(x + fixture.columns.k + h * head_dim, true, first + row);
            const float* const v = x + fixture.columns.v + h * head_dim;
            const std::vector<double> value(v, v + head_dim), zero(size(head_dim));
            for (const bool is_value : {false, true}) {
                const std::size_t at = sequence.at(h, first + row, is_value);
                compare(sequence.bits.data() + at, is_value ? value : head.value,
                        is_value ? zero : head.magnitude);
                for (int d = 0; d < stride; ++d) written.insert(at + size(d));
            }
        }
    }
    CHECK(failures == 0);
    int touched = 0;
    for (std::size_t i = 0; i < before.bits.size(); ++i)
        touched += written.count(i) == 0 && before.bits[i] != sequence.bits[i];
    CHECK(touched == 0);
    for (std::size_t i = queries.size() - 64; i < queries.size(); ++i) CHECK(queries[i] == poison);
}

// The two kernels of prefill.
struct ByWarps {
    template <class Dims, class Block, class Operand>
    using Stage = cuda::PrefillAttention<Dims, Block, Operand>;
    template <class Dims>
    static int blocks(int rows) {
        return cuda::prefill_blocks(Dims::heads, Dims::head_dim, rows);
    }
};
struct ByWarpgroups {
    template <class Dims, class Block, class Operand>
    using Stage = cuda::WarpgroupPrefillAttention<Dims, Block, Operand>;
    template <class Dims>
    static int blocks(int rows) {
        return cuda::warpgroup_prefill_blocks(Dims::heads, Dims::kv_heads, Dims::head_dim, rows);
    }
};

/// The operand of a kernel of prefill for rows [first, first + rows) of `queries`.
template <class Kernel, class Dims, class Block, class Operand>
Bits prefill(const Fixture<Dims, Block>& fixture, const Sequence<Dims>& sequence, int first, int rows,
             const Bits& queries) {
    using Stage = typename Kernel::template Stage<Dims, Block, Operand>;
    const DeviceArray<unsigned short> device_queries(queries), cache(sequence.bits);
    const std::size_t elements =
        size(Operand::planes) * size(rows) * size(cuda::operand_stride(Dims::heads * Dims::head_dim));
    const DeviceArray<unsigned short> out(Bits(elements + 64, poison));
    const DeviceArray<int> overflows(std::vector<int>{0});
    launch_and_wait<Stage>(
        Kernel::template blocks<Dims>(rows),
        {fixture.weights(), device_queries.data(), reinterpret_cast<unsigned char*>(cache.data()),
         sequence.capacity, sequence.place, first, rows, out.data(), overflows.data()});
    CHECK(overflows.read()[0] == 0);
    Bits bits = out.read();
    for (std::size_t i = elements; i < bits.size(); ++i) CHECK(bits[i] == poison);
    bits.resize(elements);
    return bits;
}

/// Random queries in FP16, padding zero.
template <class Dims>
Bits random_queries(Random& random, int rows) {
    const int stride = cuda::head_stride(Dims::head_dim);
    std::normal_distribution<float> normal(0.0f, 1.5f);
    Bits bits(size(rows) * Dims::heads * size(stride));
    for (std::size_t i = 0; i < bits.size(); ++i)
        bits[i] = static_cast<int>(i % size(stride)) < Dims::head_dim
                      ? gg::format::float_to_half(normal(random))
                      : static_cast<unsigned short>(0);
    return bits;
}

template <class Kernel, class Dims, class Block, class Operand>
void check_prefill_by(int capacity, int window, int first, int rows) {
    INFO((std::is_same_v<Kernel, ByWarps> ? "warps" : "warpgroups"));
    INFO("head_dim " << Dims::head_dim << ", window " << window << ", rows " << rows << " from " << first);
    Fixture<Dims, Block> fixture(static_cast<unsigned>(first * 3 + rows));
    Sequence<Dims> sequence(capacity, window);
    sequence.fill(fixture.random, 0, first + rows);
    const Bits queries = random_queries<Dims>(fixture.random, rows);
    const Bits out = prefill<Kernel, Dims, Block, Operand>(fixture, sequence, first, rows, queries);
    int failures = 0;
    double most = 0;
    for (int row = 0; row<rows; row += rows> 64 ? 7 : 1)
        for (int head = 0; head < Dims::heads; ++head) {
            const unsigned short* const q =
                queries.data() + (size(row) * Dims::heads + size(head)) * fixture.stride;
            std::vector<double> query, magnitude;
            for (int d = 0; d < Dims::head_dim; ++d) {
                query.push_back(half_double(q[d]));
                magnitude.push_back(std::fabs(query.back()));
            }
            const Reference<Dims> reference(sequence, query, magnitude, head, first + row,
                                            Block::has_sinks ? &fixture.sinks[size(head)] : nullptr, 0x1p-11);
            check_operand_row<Dims, Operand>(out, rows, row, head, reference, failures, most);
        }
    INFO("largest error " << most << " of its bound");
    CHECK(failures == 0);
}

/// By each kernel that takes heads of this width on this device.
template <class Dims, class Block, class Operand>
void check_prefill(int capacity, int window, int first, int rows) {
    check_prefill_by<ByWarps, Dims, Block, Operand>(capacity, window, first, rows);
    if constexpr (cuda::warpgroup_prefill_supports(Dims::head_dim))
        if (cuda_test::runs_warpgroups())
            check_prefill_by<ByWarpgroups, Dims, Block, Operand>(capacity, window, first, rows);
}

template <class Kernel>
void check_prefill_chunks() {
    using Dims = AttentionDims<8, 2, 64, 128>;
    for (const int window : {0, 128}) {
        Fixture<Dims, GptOss> fixture(9);
        Sequence<Dims> sequence(448, window);
        const int rows = 300, width = Dims::heads * Dims::head_dim, query = Dims::heads * Dims::head_dim;
        sequence.fill(fixture.random, 0, rows);
        const Bits queries = random_queries<Dims>(fixture.random, rows);
        const auto run = [&](int first, int count, const Bits& some) {
            return prefill<Kernel, Dims, GptOss, gg::cuda::HalfOperand>(fixture, sequence, first, count,
                                                                        some);
        };
        const Bits whole = run(0, rows, queries);
        for (int i = 0; i < 3; ++i) CHECK(same(whole, run(0, rows, queries)));
        Bits parts;
        for (const auto& [begin, end] : {std::pair(0, 1), std::pair(1, 140), std::pair(140, 300)}) {
            const Bits some(queries.begin() + begin * query, queries.begin() + end * query);
            const Bits part = run(begin, end - begin, some);
            parts.insert(parts.end(), part.begin(), part.end());
        }
        REQUIRE(width % 64 == 0);
        CHECK(same(parts, whole));
    }
}

// Decoding.

/// New tokens of one sequence in a step.
struct New {
    int position;  ///< of the first
    int count;
};

/// What a step leaves.
struct StepResult {
    Bits out;
    std::vector<Bits> caches;
};

/// Runs DecodeAttention `launches` times on fresh copies of the caches; the results must not differ.
template <class Dims, class Block, class Operand, int rows, int slots, int splits>
StepResult decode(const Fixture<Dims, Block>& fixture, const std::vector<Sequence<Dims>>& sequences,
                  const std::vector<New>& news, const std::vector<float>& partial, int launches = 1) {
    using Stage = cuda::DecodeAttention<Dims, Block, Operand, rows, slots, splits>;
    std::vector<int> positions;
    for (const New& n : news)
        for (int i = 0; i < n.count; ++i) positions.push_back(n.position + i);
    const int used = static_cast<int>(positions.size());
    REQUIRE(used <= rows);
    const DeviceArray<float> product(partial), cosines(fixture.table(positions, false)),
        sines(fixture.table(positions, true));
    const std::size_t elements =
        size(Operand::planes) * rows * size(cuda::operand_stride(Dims::heads * Dims::head_dim));
    const std::size_t floats = size(
        static_cast<long long>(cuda::decode_workspace_floats(Dims::heads, Dims::head_dim, rows, splits)));
    const DeviceArray<float> workspace(std::vector<float>(floats + 16, std::nanf("")));
    const DeviceArray<int> counters(std::vector<int>(rows * Dims::kv_heads, 0));
    const DeviceArray<int> overflows(std::vector<int>{0});
    StepResult first;
    for (int i = 0; i < launches; ++i) {
        std::vector<std::unique_ptr<DeviceArray<unsigned short>>> caches;
        std::vector<cuda::Row> list;
        for (std::size_t s = 0; s < sequences.size(); ++s) {
            caches.push_back(std::make_unique<DeviceArray<unsigned short>>(sequences[s].bits));
            const int begin = static_cast<int>(list.size());
            for (int n = 0; n < news[s].count; ++n)
                list.push_back({0, news[s].position + n, begin, sequences[s].capacity,
                                reinterpret_cast<unsigned char*>(caches.back()->data())});
        }
        const DeviceArray<cuda::Row> row_list(list);
        const DeviceArray<unsigned short> out(Bits(elements + 64, poison));
        const bool rotary = Block::has_rotary;
        launch_and_wait<Stage>(cuda::decode_blocks(Dims::kv_heads, used, splits),
                               {fixture.weights(), product.data(), rotary ? cosines.data() : nullptr,
                                rotary ? sines.data() : nullptr, row_list.data(), sequences[0].place, used,
                                out.data(), workspace.data(), counters.data(), overflows.data()});
        StepResult result{out.read(), {}};
        for (const auto& cache : caches) result.caches.push_back(cache->read());
        if (i == 0) {
            first = result;
        } else {
            CHECK(same(result.out, first.out));
            for (std::size_t s = 0; s < caches.size(); ++s) CHECK(same(result.caches[s], first.caches[s]));
        }
    }
    for (const int counter : counters.read()) CHECK(counter == 0);
    CHECK(overflows.read()[0] == 0);
    for (std::size_t i = elements; i < first.out.size(); ++i) CHECK(first.out[i] == poison);
    const auto after = workspace.read();
    for (std::size_t i = floats; i < after.size(); ++i) CHECK(std::isnan(after[i]));
    first.out.resize(elements);
    return first;
}

/// Partial sums of `rows` rows [slots][rows][width], and their sums in slot order.
template <class Dims, class Block, int rows, int slots>
struct Partial {
    std::vector<float> partial, sum;

    explicit Partial(Fixture<Dims, Block>& fixture) : sum(fixture.product(rows)) {
        partial = sum;
        for (int slot = 1; slot < slots; ++slot) {
            const auto more = fixture.product(rows);
            for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
            partial.insert(partial.end(), more.begin(), more.end());
        }
    }
};

template <class Dims, class Block, class Operand, int rows, int slots, int splits>
void check_decode(int capacity, int window, const std::vector<New>& news, int launches = 1) {
    INFO("head_dim " << Dims::head_dim << ", window " << window << ", first position " << news[0].position
                     << ", sequences " << news.size());
    using TheFixture = Fixture<Dims, Block>;
    TheFixture fixture(static_cast<unsigned>(news[0].position * 5 + rows));
    std::vector<Sequence<Dims>> sequences, appended;
    for (const New& n : news) {
        sequences.emplace_back(capacity, window);
        sequences.back().fill(fixture.random, 0, n.position);
    }
    const Partial<Dims, Block, rows, slots> input(fixture);
    const StepResult result =
        decode<Dims, Block, Operand, rows, slots, splits>(fixture, sequences, news, input.partial, launches);
    int row = 0, failures = 0, used = 0;
    double most = 0;
    for (std::size_t s = 0; s < news.size(); ++s) {
        const long width = fixture.columns.width, begin = row * width, end = begin + news[s].count * width;
        append(fixture, sequences[s], news[s].position,
               std::vector<float>(input.sum.begin() + begin, input.sum.begin() + end));
        CHECK(same(sequences[s].bits, result.caches[s]));
        for (int n = 0; n < news[s].count; ++n, ++row, ++used)
            for (int head = 0; head < Dims::heads; ++head) {
                const int position = news[s].position + n;
                const auto query =
                    fixture.head(input.sum.data() + row * width + head * Dims::head_dim, false, position);
                const Reference<Dims> reference(sequences[s], query.value, query.magnitude, head, position,
                                                Block::has_sinks ? &fixture.sinks[size(head)] : nullptr,
                                                0x1p-22);
                check_operand_row<Dims, Operand>(result.out, rows, row, head, reference, failures, most);
            }
    }
    INFO("largest error " << most << " of its bound");
    CHECK(failures == 0);
    // Rows that the step does not have are left alone.
    const std::size_t stride = size(cuda::operand_stride(Dims::heads * Dims::head_dim));
    for (int p = 0; p < Operand::planes; ++p)
        for (std::size_t i = size(used) * stride; i < rows * stride; ++i)
            CHECK(result.out[size(p) * rows * stride + i] == poison);
}

using cuda::BfloatPairOperand;
using cuda::HalfOperand;

}  // namespace attention_test

using namespace attention_test;

TEST_CASE("the splits of a row cover its keys once") {
    for (const int splits : {1, 2, 4, 33})
        for (const int window : {0, 1, 16, 128, 700})
            for (int position = 0; position < 6000; position += position < 300 ? 1 : 97) {
                const int visible = window > 0 ? std::max(0, position - window + 1) : 0;
                int next = visible / cuda::unit_keys, used = 0;
                for (int split = 0; split < splits; ++split) {
                    const cuda::KeyUnits units = cuda::key_units(position, window, split, splits);
                    if (split >= units.used) continue;
                    ++used;
                    REQUIRE(units.begin == next);
                    REQUIRE(units.end > units.begin);
                    next = units.end;
                }
                REQUIRE(next == position / cuda::unit_keys + 1);
                REQUIRE(used == cuda::key_units(position, window, 0, splits).used);
            }
}

TEST_CASE("AppendKeys applies the policies and rounds once") {
    GG_NEED_GPU();
    check_append<AttentionDims<8, 2, 64, 128>, GptOss>(448, 0, 37, 21);
    check_append<AttentionDims<8, 2, 64, 128, 64>, GptOss>(1024, 128, 250, 21);  // a ring that wraps
    check_append<AttentionDims<3, 3, 20>, Llama>(64, 0, 0, 5);
    check_append<AttentionDims<6, 2, 128>, Normed>(64, 0, 3, 9);
    check_append<AttentionDims<5, 5, 15>, Plain>(64, 0, 1, 4);
    check_append<AttentionDims<2, 1, 1>, Plain>(64, 0, 1, 4);
    check_append<AttentionDims<4, 2, 40>, Normed>(64, 0, 7, 33);
    check_append<AttentionDims<3, 3, 24>, Llama>(64, 0, 2, 7);
    check_append<AttentionDims<40, 5, 200>, Llama>(64, 0, 2, 3);  // more than a block's heads and threads
    check_append<AttentionDims<3, 1, 20>, GptOss>(64, 0, 0, 5);
    check_append<AttentionDims<64, 8, 64, 128>, GptOss>(448, 0, 5, 100);
    check_append<AttentionDims<33, 1, 128>, Normed>(64, 0, 3, 1);
}

TEST_CASE("AppendKeys saturates and counts what FP16 does not hold") {
    GG_NEED_GPU();
    using Dims = AttentionDims<2, 1, 16>;
    const Fixture<Dims, Plain> fixture(1);
    Sequence<Dims> sequence(64, 0);
    std::vector<float> product(size(2) * fixture.columns.width, 1.0f);
    product[3] = 1e6f;
    product[size(fixture.columns.width + fixture.columns.k) + 5] = -7e4f;
    product[size(fixture.columns.v) + 8] = 65504.0f;
    const Bits queries = append(fixture, sequence, 10, product, 2);
    CHECK(half_double(queries[3]) == 65504.0);
    CHECK(sequence.element(0, 11, false, 5) == -65504.0);
    CHECK(sequence.element(0, 10, true, 8) == 65504.0);
}

TEST_CASE("PrefillAttention equals double") {
    GG_NEED_GPU();
    using Oss = AttentionDims<8, 2, 64, 128>;
    check_prefill<Oss, GptOss, HalfOperand>(448, 0, 0, 1);
    check_prefill<Oss, GptOss, HalfOperand>(448, 0, 0, 130);
    check_prefill<Oss, GptOss, HalfOperand>(448, 0, 77, 129);
    check_prefill<Oss, GptOss, HalfOperand>(448, 128, 150, 200);
    check_prefill<AttentionDims<2, 1, 64, 100, 192>, GptOss, HalfOperand>(1024, 100, 700,
                                                                          192);  // the ring wrapped
    check_prefill<AttentionDims<2, 1, 64, 1>, GptOss, HalfOperand>(448, 1, 60, 9);
    check_prefill<AttentionDims<6, 2, 64>, Llama, BfloatPairOperand>(448, 0, 77, 129);
    check_prefill<AttentionDims<3, 3, 40>, Plain, BfloatPairOperand>(128, 0, 5, 71);
    check_prefill<AttentionDims<3, 1, 20>, Llama, BfloatPairOperand>(128, 0, 0, 65);
    check_prefill<AttentionDims<5, 5, 15>, Plain, HalfOperand>(128, 0, 3, 66);
    check_prefill<AttentionDims<5, 5, 15>, Plain, BfloatPairOperand>(64, 0, 3, 3);
    check_prefill<AttentionDims<2, 2, 128>, Normed, HalfOperand>(256, 0, 64, 70);
    check_prefill<AttentionDims<8, 2, 128>, Normed, HalfOperand>(704, 0, 300, 400);
    check_prefill<AttentionDims<2, 1, 200, 50>, Normed, HalfOperand>(256, 50, 30, 70);
    check_prefill<AttentionDims<1, 1, 256>, Plain, HalfOperand>(256, 0, 30, 66);
    check_prefill<AttentionDims<2, 1, 1>, Plain, HalfOperand>(64, 0, 2, 5);
}

TEST_CASE("PrefillAttention over a long context equals double") {
    GG_NEED_GPU();
    check_prefill<AttentionDims<8, 2, 64, 128>, GptOss, HalfOperand>(5056, 0, 4990, 20);
}

TEST_CASE("PrefillAttention gives the same bits in any chunks, and every time") {
    GG_NEED_GPU();
    SECTION("warps") {
        check_prefill_chunks<ByWarps>();
    }
    SECTION("warpgroups") {
        if (!cuda_test::runs_warpgroups()) GG_SKIP("no products of warpgroups: they need code for sm_90a");
        check_prefill_chunks<ByWarpgroups>();
    }
}

TEST_CASE("DecodeAttention of one row equals double") {
    GG_NEED_GPU();
    using Oss = AttentionDims<16, 2, 64, 128, 64>;
    for (const int position : {0, 1, 15, 16, 17, 100, 127, 130, 1023})
        check_decode<Oss, GptOss, HalfOperand, 1, 3, 33>(1024, 0, {{position, 1}});
    for (const int position : {0, 127, 128, 190, 191, 192, 900})
        check_decode<Oss, GptOss, HalfOperand, 1, 3, 33>(1024, 128, {{position, 1}});
    check_decode<AttentionDims<5, 5, 15>, Plain, HalfOperand, 1, 1, 2>(128, 0, {{77, 1}});
    check_decode<AttentionDims<5, 5, 15>, Plain, BfloatPairOperand, 1, 1, 2>(1088, 0, {{1085, 1}});
    check_decode<AttentionDims<3, 3, 40>, Llama, BfloatPairOperand, 1, 2, 4>(640, 0, {{630, 1}});
    check_decode<AttentionDims<3, 1, 20>, Llama, HalfOperand, 1, 2, 4>(128, 0, {{66, 1}});
    check_decode<AttentionDims<4, 2, 128>, Normed, HalfOperand, 1, 1, 4>(1280, 0, {{1201, 1}});
    check_decode<AttentionDims<24, 1, 72>, Normed, HalfOperand, 1, 1, 4>(1280, 0, {{1201, 1}});
    check_decode<AttentionDims<64, 1, 16>, Llama, HalfOperand, 1, 1, 1>(128, 0, {{100, 1}});
    check_decode<AttentionDims<9, 1, 256>, Llama, HalfOperand, 1, 1, 2>(640, 0, {{600, 1}});
    check_decode<AttentionDims<32, 1, 256>, Llama, HalfOperand, 1, 1, 2>(640, 0, {{600, 1}});
    for (const int position : {1, 2, 3, 5})  // the two parts of a weight
        check_decode<AttentionDims<16, 16, 2>, Plain, BfloatPairOperand, 1, 1, 1>(64, 0, {{position, 1}});
    check_decode<AttentionDims<2, 1, 1>, Plain, HalfOperand, 1, 1, 1>(64, 0, {{5, 1}});
}

TEST_CASE("DecodeAttention over a long context equals double, and itself ten times") {
    GG_NEED_GPU();
    check_decode<AttentionDims<16, 2, 64, 128, 64>, GptOss, HalfOperand, 1, 3, 33>(5056, 0, {{5000, 1}}, 10);
}

TEST_CASE("DecodeAttention of several rows and sequences equals double") {
    GG_NEED_GPU();
    using Oss = AttentionDims<16, 2, 64, 128, 64>;
    check_decode<Oss, GptOss, HalfOperand, 8, 3, 4>(1152, 0, {{1020, 3}, {0, 2}, {530, 1}, {63, 1}}, 3);
    check_decode<Oss, GptOss, HalfOperand, 8, 3, 4>(1152, 128, {{1020, 3}, {0, 2}, {530, 1}, {63, 1}}, 3);
    check_decode<Oss, GptOss, HalfOperand, 8, 3, 4>(1152, 0, {{508, 8}}, 3);
    check_decode<AttentionDims<2, 1, 64, 4, 8>, GptOss, BfloatPairOperand, 8, 1, 2>(128, 4, {{90, 8}});
    check_decode<AttentionDims<4, 2, 40>, Normed, HalfOperand, 3, 1, 2>(640, 0, {{5, 1}, {600, 2}});
    check_decode<AttentionDims<6, 2, 64>, Llama, BfloatPairOperand, 8, 2, 3>(640, 0, {{600, 4}, {7, 4}});
    check_decode<AttentionDims<4, 1, 256>, Normed, HalfOperand, 8, 2, 2>(640, 0, {{600, 8}});
}

TEST_CASE("tokens decoded together and one after another give the same bits") {
    GG_NEED_GPU();
    using Dims = AttentionDims<16, 2, 64, 128, 64>;
    constexpr int rows = 8, slots = 3, splits = 4;
    for (const int window : {0, 128}) {
        Fixture<Dims, GptOss> fixture(4);
        std::vector<Sequence<Dims>> sequence = {{1152, window}};
        const int position = 1021;
        sequence[0].fill(fixture.random, 0, position);
        const Partial<Dims, GptOss, rows, slots> input(fixture);
        const StepResult together = decode<Dims, GptOss, HalfOperand, rows, slots, splits>(
            fixture, sequence, {{position, rows}}, input.partial);
        const long width = fixture.columns.width;
        for (int row = 0; row < rows; ++row) {
            std::vector<float> alone(input.partial.size(), std::nanf(""));
            for (int slot = 0; slot < slots; ++slot)
                std::copy_n(input.partial.begin() + (slot * rows + row) * width, width,
                            alone.begin() + slot * rows * width);
            const StepResult step = decode<Dims, GptOss, HalfOperand, rows, slots, splits>(
                fixture, sequence, {{position + row, 1}}, alone);
            sequence[0].bits = step.caches[0];
            const long stride = cuda::operand_stride(Dims::heads * Dims::head_dim);
            CHECK(same(Bits(step.out.begin(), step.out.begin() + stride),
                       Bits(together.out.begin() + row * stride, together.out.begin() + (row + 1) * stride)));
        }
        CHECK(same(sequence[0].bits, together.caches[0]));
    }
}
