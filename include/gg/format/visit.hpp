// From a run-time element type to its format, and the decode of whole rows, for host code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "gg/core/dtype.hpp"
#include "gg/core/error.hpp"
#include "gg/format/floats.hpp"
#include "gg/format/iq4_nl.hpp"
#include "gg/format/mxfp4.hpp"
#include "gg/format/q4_0.hpp"
#include "gg/format/q4_1.hpp"
#include "gg/format/q4_k.hpp"
#include "gg/format/q5_0.hpp"
#include "gg/format/q5_1.hpp"
#include "gg/format/q5_k.hpp"
#include "gg/format/q6_k.hpp"
#include "gg/format/q8_0.hpp"

namespace gg::format {

/// The element type of a format.
template <class Format>
inline constexpr DType dtype_of = static_cast<DType>(~0u);
template <>
inline constexpr DType dtype_of<F32> = DType::f32;
template <>
inline constexpr DType dtype_of<F16> = DType::f16;
template <>
inline constexpr DType dtype_of<Q4_0> = DType::q4_0;
template <>
inline constexpr DType dtype_of<Q4_1> = DType::q4_1;
template <>
inline constexpr DType dtype_of<Q5_0> = DType::q5_0;
template <>
inline constexpr DType dtype_of<Q5_1> = DType::q5_1;
template <>
inline constexpr DType dtype_of<Q8_0> = DType::q8_0;
template <>
inline constexpr DType dtype_of<Q4_K> = DType::q4_k;
template <>
inline constexpr DType dtype_of<Q5_K> = DType::q5_k;
template <>
inline constexpr DType dtype_of<Q6_K> = DType::q6_k;
template <>
inline constexpr DType dtype_of<IQ4_NL> = DType::iq4_nl;
template <>
inline constexpr DType dtype_of<BF16> = DType::bf16;
template <>
inline constexpr DType dtype_of<MXFP4> = DType::mxfp4;

/// Whether dtype.hpp agrees with a format about elements and bytes per block.
template <class Format>
inline constexpr bool matches_dtype = info(dtype_of<Format>).elements
                                      == Format::elements&& info(dtype_of<Format>).bytes == Format::bytes;
static_assert(matches_dtype<F32> && matches_dtype<F16> && matches_dtype<BF16>);
static_assert(matches_dtype<Q8_0> && matches_dtype<Q4_0> && matches_dtype<Q4_1> && matches_dtype<Q5_0>);
static_assert(matches_dtype<Q5_1> && matches_dtype<IQ4_NL> && matches_dtype<MXFP4>);
static_assert(matches_dtype<Q4_K> && matches_dtype<Q5_K> && matches_dtype<Q6_K>);

/// Calls `f` with a value of the format that belongs to `type`: visit(type, [](auto format) {
/// using Format = decltype(format); ... }). Throws gg::Error (internal) for a value that no enumerator names.
template <class F>
decltype(auto) visit(DType type, F&& f) {
    switch (type) {
        case DType::f32:
            return std::forward<F>(f)(F32{});
        case DType::f16:
            return std::forward<F>(f)(F16{});
        case DType::q4_0:
            return std::forward<F>(f)(Q4_0{});
        case DType::q4_1:
            return std::forward<F>(f)(Q4_1{});
        case DType::q5_0:
            return std::forward<F>(f)(Q5_0{});
        case DType::q5_1:
            return std::forward<F>(f)(Q5_1{});
        case DType::q8_0:
            return std::forward<F>(f)(Q8_0{});
        case DType::q4_k:
            return std::forward<F>(f)(Q4_K{});
        case DType::q5_k:
            return std::forward<F>(f)(Q5_K{});
        case DType::q6_k:
            return std::forward<F>(f)(Q6_K{});
        case DType::iq4_nl:
            return std::forward<F>(f)(IQ4_NL{});
        case DType::bf16:
            return std::forward<F>(f)(BF16{});
        case DType::mxfp4:
            return std::forward<F>(f)(MXFP4{});
    }
    throw Error(ErrorCode::internal,
                "no format for element type " + std::to_string(static_cast<std::uint32_t>(type)));
}

/// Decodes a row of `elements` elements, a multiple of the type's block length. `out` has room for as many
/// floats.
inline void decode_row(DType type, const std::byte* row, std::uint64_t elements, float* out) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(row);
    visit(type, [&](auto format) {
        using Format = decltype(format);
        for (std::uint64_t block = 0; block < elements / Format::elements; ++block)
            Format::decode(bytes + block * Format::bytes, out + block * Format::elements);
    });
}

}  // namespace gg::format
