// What the encoders of blocks share: the largest magnitude of some floats, reciprocals that do not overflow,
// and scales as FP16. Floats are finite here; encode.hpp refuses others.
//
// Errors: gg::Error (invalid_request) for magnitudes whose scale is too large for FP16.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "gg/core/error.hpp"
#include "gg/format/bytes.hpp"
#include "gg/format/encode_floats.hpp"

namespace gg::format {

/// The index of the first infinity or NaN.
inline std::optional<std::uint64_t> find_non_finite(const float* x, std::uint64_t elements) {
    for (std::uint64_t i = 0; i < elements; ++i)
        if ((float_bits(x[i]) & 0x7f800000u) == 0x7f800000u) return i;
    return std::nullopt;
}

/// The element of the largest magnitude, the first of several.
template <int n>
inline float largest_element(const float* x) {
    int at = 0;
    unsigned largest = 0;
    for (int j = 0; j < n; ++j) {
        const unsigned magnitude = float_bits(x[j]) & 0x7fffffffu;
        at = magnitude > largest ? j : at;
        largest = magnitude > largest ? magnitude : largest;
    }
    return x[at];
}

/// 1 / scale, and 0 below 2^-127, where the reciprocal may overflow.
inline float reciprocal(float scale) {
    return scale < 0x1p-127f && scale > -0x1p-127f ? 0.0f : 1.0f / scale;
}

[[noreturn]] inline void refuse_magnitude(const char* format, float found) {
    throw Error(ErrorCode::invalid_request, {.file = {},
                                             .field = format,
                                             .expected = "magnitudes whose scale fits FP16",
                                             .found = std::to_string(found),
                                             .next_step = "Use BF16, F32 or MXFP4."});
}

/// The little-endian FP16 of a scale; `largest` is what it was made of, for the message of the refusal.
inline void store_scale(float scale, unsigned char* at, const char* format, float largest) {
    const unsigned half = float_to_half(scale);
    if ((half & 0x7c00u) == 0x7c00u) refuse_magnitude(format, largest);
    at[0] = static_cast<unsigned char>(half & 255u);
    at[1] = static_cast<unsigned char>(half >> 8);
}

}  // namespace gg::format
