// Float rows to the element types that gg writes: F32, F16, BF16, Q8_0, MXFP4.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "gg/core/dtype.hpp"
#include "gg/format/encode_blocks.hpp"

namespace gg::format {

/// Encodes a row of `elements` floats, a multiple of the type's block length, into row bytes. Throws
/// gg::Error (invalid_request) for another type, a length that is no multiple, and what encode_blocks.hpp
/// refuses.
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
    const std::uint64_t blocks = elements / geometry.elements;
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
        case DType::q8_0:
            for (std::uint64_t i = 0; i < blocks; ++i) encode_q8_0(in + 32 * i, bytes + Q8_0::bytes * i);
            return;
        case DType::mxfp4:
            for (std::uint64_t i = 0; i < blocks; ++i) encode_mxfp4(in + 32 * i, bytes + MXFP4::bytes * i);
            return;
        default:
            break;
    }
    throw Error(ErrorCode::invalid_request, {.file = {},
                                             .field = "element type",
                                             .expected = "F32, F16, BF16, Q8_0 or MXFP4 to encode to",
                                             .found = std::string(geometry.name),
                                             .next_step = {}});
}

}  // namespace gg::format
