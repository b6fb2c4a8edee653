// Float rows to the element types that gg writes: all but IQ4_NL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "gg/core/dtype.hpp"
#include "gg/format/encode_blocks.hpp"
#include "gg/format/encode_k_minimum.hpp"
#include "gg/format/encode_nibbles.hpp"
#include "gg/format/encode_q6_k.hpp"

namespace gg::format {

/// Encodes the blocks of a row one by one.
template <class Format>
inline void encode_blocks(void (*encode)(const float*, unsigned char*), const float* in,
                          std::uint64_t elements, unsigned char* row) {
    const std::uint64_t blocks = elements / Format::elements;
    for (std::uint64_t i = 0; i < blocks; ++i) encode(in + Format::elements * i, row + Format::bytes * i);
}

/// Encodes finite floats to a block type.
inline void encode_block_row(DType type, const float* in, std::uint64_t elements, unsigned char* row) {
    switch (type) {
        case DType::q8_0:
            return encode_blocks<Q8_0>(encode_q8_0, in, elements, row);
        case DType::q4_0:
            return encode_blocks<Q4_0>(encode_q4_0, in, elements, row);
        case DType::q4_1:
            return encode_blocks<Q4_1>(encode_q4_1, in, elements, row);
        case DType::q5_0:
            return encode_blocks<Q5_0>(encode_q5_0, in, elements, row);
        case DType::q5_1:
            return encode_blocks<Q5_1>(encode_q5_1, in, elements, row);
        case DType::q4_k:
            return encode_blocks<Q4_K>(encode_q4_k, in, elements, row);
        case DType::q5_k:
            return encode_blocks<Q5_K>(encode_q5_k, in, elements, row);
        case DType::q6_k:
            return encode_blocks<Q6_K>(encode_q6_k, in, elements, row);
        case DType::mxfp4:
            return encode_blocks<MXFP4>(encode_mxfp4, in, elements, row);
        default:
            break;
    }
    throw Error(ErrorCode::invalid_request, {.file = {},
                                             .field = "element type",
                                             .expected = "a type that gg encodes to",
                                             .found = std::string(info(type).name),
                                             .next_step = {}});
}

/// Encodes a row of `elements` floats, a multiple of the type's block length, into row bytes. Infinities and
/// NaNs stay what they are in the float types. Throws gg::Error (invalid_request) for IQ4_NL, a length that
/// is no multiple, and in block types for infinities and NaNs, naming the position, and for magnitudes whose
/// scale would be too large.
inline void encode_row(DType type, const float* in, std::uint64_t elements, std::byte* row) {
    auto* bytes = reinterpret_cast<unsigned char*>(row);
    const DTypeInfo& geometry = info(type);
    if (elements % geometry.elements != 0)
        throw Error(ErrorCode::invalid_request,
                    {.file = {},
                     .field = std::string(geometry.name),
                     .expected = "a multiple of " + std::to_string(geometry.elements) + " elements",
                     .found = std::to_string(elements),
                     .next_step = {}});
    const auto store_u16 = [](unsigned char* at, unsigned short value) { std::memcpy(at, &value, 2); };
    switch (type) {
        case DType::f32:
            std::memcpy(bytes, in, elements * sizeof(float));
            return;
        case DType::f16:
            for (std::uint64_t i = 0; i < elements; ++i) store_u16(bytes + 2 * i, float_to_half(in[i]));
            return;
        case DType::bf16:
            for (std::uint64_t i = 0; i < elements; ++i) store_u16(bytes + 2 * i, float_to_bfloat(in[i]));
            return;
        default:
            break;
    }
    if (const auto position = find_non_finite(in, elements))
        throw Error(ErrorCode::invalid_request, {.file = {},
                                                 .field = "element " + std::to_string(*position),
                                                 .expected = "finite elements to encode",
                                                 .found = "infinity or NaN",
                                                 .next_step = {}});
    encode_block_row(type, in, elements, bytes);
}

}  // namespace gg::format
