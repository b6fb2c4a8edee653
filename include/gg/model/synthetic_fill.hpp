// Random weights, straight in their block format: a tensor's deviation and mean made a recipe, and the recipe
// filled in, block by block as synthetic_blocks.hpp says. A file is a function of the model and the seed,
// whatever the number of threads. Errors: gg::Error invalid_request for types that are not filled.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <vector>

#include "gg/format/encode_floats.hpp"
#include "gg/gguf/writer.hpp"
#include "gg/model/synthetic_blocks.hpp"
#include "gg/model/synthetic_tensors.hpp"

namespace gg {

namespace detail {

inline void set_mxfp4(SyntheticRecipe& recipe, double deviation) {
    // Half of the blocks have one exponent less, which leaves 5/8 of the mean square; a share of all has one
    // more, which multiplies it by 1 + 3 share.
    const double unit = deviation / std::sqrt(137.0 / 16 * 0.625);
    const double exponent = std::floor(std::log2(unit)), ratio = unit / std::exp2(exponent);
    recipe.share = static_cast<unsigned>(std::lround(128 * (ratio * ratio - 1) / 3));
    recipe.exponent = 127 + static_cast<int>(exponent);
}

/// 16 scales within 1 +- 1/4.
inline void set_q8_0(SyntheticRecipe& recipe, double deviation) {
    std::array<double, 16> factors{};
    double square = 0;
    for (std::size_t i = 0; i < 16; ++i) {
        factors[i] = 0.75 + static_cast<double>(i) / 30;
        square += factors[i] * factors[i] / 16;
    }
    for (std::size_t i = 0; i < 16; ++i)
        recipe.scales[i] =
            format::float_to_half(static_cast<float>(deviation * factors[i] / std::sqrt(5397.5 * square)));
}

/// Fills blocks; `fill(scale, block, out)` one of them, of `bytes` bytes.
template <class Fill>
void fill_blocks(const SyntheticRecipe& recipe, std::uint64_t first, std::uint64_t blocks, std::size_t bytes,
                 unsigned char* out, Fill&& fill) {
    text::RandomWords scales = synthetic_scale_words(recipe, first);
    for (std::uint64_t block = first; block < first + blocks; ++block, out += bytes) {
        if (block % 16 == 0) scales = synthetic_scale_words(recipe, block);
        fill(recipe, synthetic_scale_byte(scales, block), block, out);
    }
}

template <class Word>
void fill_floats(const SyntheticRecipe& recipe, std::uint64_t first, std::uint64_t count,
                 unsigned char* out) {
    std::array<Word, synthetic_values> values;
    for (int i = 0; i < synthetic_values; ++i)
        values[static_cast<std::size_t>(i)] = static_cast<Word>(synthetic_value(recipe, i));
    const std::uint64_t end = first + count;
    for (std::uint64_t i = first; i < end;) {
        const text::RandomWords words = synthetic_words(recipe, 0, i / 4);
        const std::uint64_t begin = i % 4, n = std::min(4 - begin, end - i);
        for (std::uint64_t j = begin; j < begin + n; ++j, out += sizeof(Word))
            std::memcpy(out, &values[synthetic_index(words.word[j])], sizeof(Word));
        i += n;
    }
}

inline constexpr std::uint64_t synthetic_piece = std::uint64_t{1} << 16;  ///< elements that a task fills
inline constexpr std::uint64_t synthetic_batch = std::uint64_t{1} << 22;  ///< elements written at once

}  // namespace detail

/// The recipe of a tensor. Refuses types that are not filled.
inline SyntheticRecipe synthetic_recipe(const SyntheticTensor& tensor, std::uint64_t seed) {
    SyntheticRecipe recipe{};
    recipe.key[0] = static_cast<unsigned>(seed);
    recipe.key[1] = static_cast<unsigned>(seed >> 32);
    recipe.tensor = tensor.number;
    recipe.type = static_cast<int>(tensor.view.type);
    recipe.mean = tensor.mean;
    recipe.unit = tensor.deviation / std::sqrt(4 * 65535.0 / 12);
    switch (tensor.view.type) {
        case DType::mxfp4:
            detail::set_mxfp4(recipe, tensor.deviation);
            return recipe;
        case DType::q8_0:
            detail::set_q8_0(recipe, tensor.deviation);
            return recipe;
        case DType::f16:
        case DType::bf16:
        case DType::f32:
            return recipe;
        default:
            break;
    }
    throw Error(ErrorCode::invalid_request, {.file = {},
                                             .field = "tensor " + tensor.view.name,
                                             .expected = "type F32, F16, BF16, Q8_0 or MXFP4",
                                             .found = std::string(info(tensor.view.type).name),
                                             .next_step = {}});
}

/// Fills elements first to first + count - 1 of a tensor, whole blocks.
inline void fill_synthetic(const SyntheticRecipe& recipe, std::uint64_t first, std::uint64_t count,
                           std::byte* out) {
    auto* bytes = reinterpret_cast<unsigned char*>(out);
    switch (static_cast<DType>(recipe.type)) {
        case DType::mxfp4:
            return detail::fill_blocks(recipe, first / 32, count / 32, 17, bytes, fill_synthetic_mxfp4);
        case DType::q8_0:
            return detail::fill_blocks(recipe, first / 32, count / 32, 34, bytes, fill_synthetic_q8_0);
        case DType::f32:
            return detail::fill_floats<std::uint32_t>(recipe, first, count, bytes);
        default:
            return detail::fill_floats<std::uint16_t>(recipe, first, count, bytes);
    }
}

/// Writes a tensor to a sink; one task of each loop writes what the loop before has filled. `advance` is
/// told, on the calling thread, how many elements were filled since the last call; it may throw.
template <class Pool>
void write_synthetic(const SyntheticTensor& tensor, std::uint64_t seed, Pool& pool,
                     const std::function<void(std::uint64_t)>& advance, const gguf::ByteSink& sink) {
    const SyntheticRecipe recipe = synthetic_recipe(tensor, seed);
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
                fill_synthetic(recipe, first + from, std::min(detail::synthetic_piece, count - from),
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
