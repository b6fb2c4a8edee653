// Random weights, straight in their block format:
//
//   MXFP4           codes uniform (mean square 137/16), three neighbouring exponents in the proportion that
//   gives the
//                   deviation
//   Q8_0            codes uniform in -127..127, zero twice as likely (mean square 5397.5); 16 scales within 1
//   +- 1/4 F32, F16, BF16  the sum of four uniform bytes, nearly normal: 1021 values
//
// All bits come from Philox (gg/text/random.hpp): key = seed, counter = (place, tensor, purpose). A file is a
// function of the model and the seed, whatever the number of threads. Errors: gg::Error invalid_request for
// types that are not filled.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <vector>

#include "gg/format/encode.hpp"
#include "gg/gguf/writer.hpp"
#include "gg/model/synthetic_tensors.hpp"
#include "gg/text/random.hpp"

namespace gg {

namespace detail {

/// Random words of one tensor for one purpose.
struct SyntheticWords {
    std::uint64_t seed;
    unsigned tensor, purpose;

    text::RandomWords operator()(std::uint64_t at) const {
        return text::philox({{static_cast<unsigned>(at), static_cast<unsigned>(at >> 32), tensor, purpose}},
                            static_cast<unsigned>(seed), static_cast<unsigned>(seed >> 32));
    }
};

/// Random bytes one after the other, from a place that is a multiple of 16 on.
class SyntheticBytes {
  public:
    SyntheticBytes(const SyntheticWords& words, std::uint64_t first) : words_(words), at_(first) {}

    unsigned next() {
        const unsigned i = static_cast<unsigned>(at_ % 16);
        if (i == 0) random_ = words_(at_ / 16);
        ++at_;
        return random_.word[i / 4] >> 8 * (i % 4) & 255;
    }

  private:
    SyntheticWords words_;
    std::uint64_t at_;
    text::RandomWords random_{};
};

inline void fill_mxfp4(const SyntheticWords& codes, SyntheticBytes scales, double deviation,
                       std::uint64_t first, std::uint64_t blocks, unsigned char* out) {
    // Half of the blocks have one exponent less, which leaves 5/8 of the mean square; a share of all has one
    // more, which multiplies it by 1 + 3 share.
    const double unit = deviation / std::sqrt(137.0 / 16 * 0.625);
    const double exponent = std::floor(std::log2(unit)), ratio = unit / std::exp2(exponent);
    const auto share_of_128 = static_cast<unsigned>(std::lround(128 * (ratio * ratio - 1) / 3));
    const int base = 127 + static_cast<int>(exponent);
    for (std::uint64_t i = 0; i < blocks; ++i, out += 17) {
        const unsigned random = scales.next();
        const int up = (random & 127) < share_of_128 ? 1 : 0, down = static_cast<int>(random >> 7);
        out[0] = static_cast<unsigned char>(base + up - down);
        const text::RandomWords words = codes(first + i);
        std::memcpy(out + 1, words.word, 16);
    }
}

inline void fill_q8_0(const SyntheticWords& codes, SyntheticBytes scales, double deviation,
                      std::uint64_t first, std::uint64_t blocks, unsigned char* out) {
    std::array<double, 16> factors{};
    double square = 0;
    for (std::size_t i = 0; i < 16; ++i) {
        factors[i] = 0.75 + static_cast<double>(i) / 30;
        square += factors[i] * factors[i] / 16;
    }
    std::array<std::uint16_t, 16> halves{};
    for (std::size_t i = 0; i < 16; ++i)
        halves[i] =
            format::float_to_half(static_cast<float>(deviation * factors[i] / std::sqrt(5397.5 * square)));
    for (std::uint64_t i = 0; i < blocks; ++i, out += 34) {
        std::memcpy(out, &halves[scales.next() & 15], 2);
        for (unsigned half = 0; half < 2; ++half) {
            const text::RandomWords words = codes(2 * (first + i) + half);
            std::memcpy(out + 2 + 16 * half, words.word, 16);
        }
        for (int j = 2; j < 34; ++j) out[j] = out[j] == 0x80 ? 0 : out[j];  // encoders write no -128
    }
}

template <class Word>
void fill_floats(const SyntheticWords& codes, const SyntheticTensor& tensor, std::uint64_t first,
                 std::uint64_t count, unsigned char* out) {
    constexpr std::size_t values = 4 * 255 + 1;
    const double unit = tensor.deviation / std::sqrt(4 * 65535.0 / 12);
    std::array<float, values> floats;
    for (std::size_t i = 0; i < values; ++i)
        floats[i] = static_cast<float>(tensor.mean + unit * (static_cast<double>(i) - 510));
    std::array<Word, values> encoded;
    format::encode_row(tensor.view.type, floats.data(), values, reinterpret_cast<std::byte*>(encoded.data()));
    for (std::uint64_t i = 0; i < count; i += 4) {
        const text::RandomWords words = codes((first + i) / 4);
        for (std::uint64_t j = 0; j < std::min<std::uint64_t>(4, count - i); ++j) {
            const unsigned pairs = (words.word[j] & 0x00FF00FF) + (words.word[j] >> 8 & 0x00FF00FF);
            std::memcpy(out + (i + j) * sizeof(Word), &encoded[(pairs & 0xFFFF) + (pairs >> 16)],
                        sizeof(Word));
        }
    }
}

inline constexpr std::uint64_t synthetic_piece = std::uint64_t{1} << 16;  ///< elements that a task fills
inline constexpr std::uint64_t synthetic_batch = std::uint64_t{1} << 22;  ///< elements written at once

}  // namespace detail

/// Fills elements first to first + count - 1 of a tensor: whole blocks, `first` a multiple of 2^16.
inline void fill_synthetic(const SyntheticTensor& tensor, std::uint64_t seed, std::uint64_t first,
                           std::uint64_t count, std::byte* out) {
    auto* bytes = reinterpret_cast<unsigned char*>(out);
    const detail::SyntheticWords codes{seed, tensor.number, 0}, scale_words{seed, tensor.number, 1};
    const auto elements = static_cast<std::uint64_t>(info(tensor.view.type).elements);
    const std::uint64_t first_block = first / elements, blocks = count / elements;
    const detail::SyntheticBytes scales(scale_words, first_block);
    switch (tensor.view.type) {
        case DType::mxfp4:
            return detail::fill_mxfp4(codes, scales, tensor.deviation, first_block, blocks, bytes);
        case DType::q8_0:
            return detail::fill_q8_0(codes, scales, tensor.deviation, first_block, blocks, bytes);
        case DType::f16:
        case DType::bf16:
            return detail::fill_floats<std::uint16_t>(codes, tensor, first, count, bytes);
        case DType::f32:
            return detail::fill_floats<std::uint32_t>(codes, tensor, first, count, bytes);
        default:
            break;
    }
    throw Error(ErrorCode::invalid_request, {.file = {},
                                             .field = "tensor " + tensor.view.name,
                                             .expected = "type F32, F16, BF16, Q8_0 or MXFP4",
                                             .found = std::string(info(tensor.view.type).name),
                                             .next_step = {}});
}

/// Writes a tensor to a sink; one task of each loop writes what the loop before has filled. `advance` is
/// told, on the calling thread, how many elements were filled since the last call; it may throw.
template <class Pool>
void write_synthetic(const SyntheticTensor& tensor, std::uint64_t seed, Pool& pool,
                     const std::function<void(std::uint64_t)>& advance, const gguf::ByteSink& sink) {
    const DTypeInfo& type = info(tensor.view.type);
    const auto bytes_of = [&](std::uint64_t n) { return n / type.elements * type.bytes; };
    std::vector<std::byte> filled, next;
    const std::uint64_t elements = tensor.view.elements();
    for (std::uint64_t first = 0; first < elements || !filled.empty();) {
        const std::uint64_t count = std::min(detail::synthetic_batch, elements - first);
        const std::uint64_t pieces = (count + detail::synthetic_piece - 1) / detail::synthetic_piece;
        next.resize(bytes_of(count));
        std::vector<std::exception_ptr> failures(pieces + 1);
        pool.run(static_cast<long>(pieces + 1), [&](long task, int) {
            const auto index = static_cast<std::uint64_t>(task);
            try {
                if (index == 0) return sink(filled);
                const std::uint64_t from = (index - 1) * detail::synthetic_piece;
                fill_synthetic(tensor, seed, first + from, std::min(detail::synthetic_piece, count - from),
                               next.data() + bytes_of(from));
            } catch (...) {
                failures[index] = std::current_exception();
            }
        });
        for (const std::exception_ptr& failure : failures)
            if (failure) std::rethrow_exception(failure);
        if (advance) advance(count);
        first += count;
        filled.swap(next);
    }
}

/// Adds tensors to a writer, which fills them when it writes; `pool` (such as a host::ThreadPool) must last
/// until then.
template <class Pool>
void add_synthetic_tensors(gguf::Writer& writer, const std::vector<SyntheticTensor>& tensors,
                           std::uint64_t seed, Pool& pool,
                           const std::function<void(std::uint64_t)>& advance = {}) {
    for (const SyntheticTensor& tensor : tensors)
        writer.add_tensor(
            tensor.view.name, tensor.view.type,
            std::span(tensor.view.shape).first(static_cast<std::size_t>(tensor.view.dimensions)),
            [tensor, seed, &pool, advance](const gguf::ByteSink& sink) {
                write_synthetic(tensor, seed, pool, advance, sink);
            });
}

}  // namespace gg
