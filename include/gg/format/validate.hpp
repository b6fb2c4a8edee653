// Finds blocks whose scale is not a number, so that a loader can refuse a tensor before one NaN reaches every
// logit: E8M0 255 in MXFP4, FP16 infinity or NaN elsewhere. Reads the scales only.
#pragma once

#include <cstdint>
#include <optional>

#include "gg/core/tensor.hpp"
#include "gg/format/visit.hpp"

namespace gg::format {

/// Where the FP16 scales of a format lie in its block: `count` of them, one after the other from `offset`.
struct HalfScales {
    int offset;
    int count;
};

/// Of a block format with FP16 scales; none for the float types and MXFP4.
template <class Format>
constexpr HalfScales half_scales() {
    constexpr DType type = dtype_of<Format>;
    if (Format::elements == 1 || type == DType::mxfp4) return {0, 0};
    if (type == DType::q6_k) return {208, 1};
    const bool two = type == DType::q4_1 || type == DType::q5_1 || type == DType::q4_k || type == DType::q5_k;
    return {0, two ? 2 : 1};
}

/// Whether the scale of one block is finite. Always true for the float types.
template <class Format>
inline bool has_finite_scale(const unsigned char* block) {
    if constexpr (dtype_of<Format> == DType::mxfp4) return block[0] != 255;
    constexpr HalfScales scales = half_scales<Format>();
    for (int i = 0; i < scales.count; ++i)
        if ((load_u16(block + scales.offset + 2 * i) & 0x7c00u) == 0x7c00u) return false;
    return true;
}

/// The index, in the order of the bytes, of the first block whose scale is not finite; none if all are, and
/// for the float types.
inline std::optional<std::uint64_t> find_invalid_block(const TensorView& tensor) {
    return visit(tensor.type, [&](auto format) -> std::optional<std::uint64_t> {
        using Format = decltype(format);
        if constexpr (Format::elements > 1) {
            const auto* bytes = reinterpret_cast<const unsigned char*>(tensor.data);
            const std::uint64_t blocks = tensor.bytes() / Format::bytes;
            for (std::uint64_t i = 0; i < blocks; ++i)
                if (!has_finite_scale<Format>(bytes + i * Format::bytes)) return i;
        }
        return std::nullopt;
    });
}

}  // namespace gg::format
