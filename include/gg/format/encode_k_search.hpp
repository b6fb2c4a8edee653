// What the encoders of K-quants share. A part of a block (16 or 32 elements with one scale) has codes q; the
// squared error of any scale with these codes follows from a few sums, so a candidate costs one pass.
#pragma once

#include "gg/format/encode_scale.hpp"

namespace gg::format {

/// codes[j] = the integer from 0 to `top` nearest to x[j] * inverse + offset, less `bias`. Halves may go
/// either way: compilers may fuse the product and the sum.
template <int n>
inline void nearest_codes(const float* __restrict x, float inverse, float offset, int top, int bias,
                          float* __restrict codes) {
    // Loops of one step each, as g++ does not vectorise them together.
    const auto most = static_cast<float>(top);
    float place[n];
    for (int j = 0; j < n; ++j) place[j] = x[j] * inverse + offset;
    for (int j = 0; j < n; ++j) place[j] = place[j] < most ? place[j] : most;
    for (int j = 0; j < n; ++j) place[j] = place[j] > 0.0f ? place[j] : 0.0f;
    for (int j = 0; j < n; ++j) codes[j] = static_cast<float>(static_cast<int>(place[j] + 0.5f) - bias);
}

/// Sums over the elements of a part.
struct Sums {
    double code = 0;     ///< of q
    double square = 0;   ///< of q * q
    double product = 0;  ///< of x * q
};

/// The sum in the order of a tree, which compilers vectorise.
template <int n, class Number>
inline double tree_sum(Number* terms) {
    if constexpr (n == 1)
        return static_cast<double>(terms[0]);
    else {
        for (int j = 0; j < n / 2; ++j) terms[j] += terms[j + n / 2];
        return tree_sum<n / 2>(terms);
    }
}

template <int n>
inline Sums sums_of(const float* x, const float* codes) {
    // Integers below 2^24 are exact in floats; products are kept in doubles, as errors are differences.
    float code[n], square[n];
    double product[n];
    for (int j = 0; j < n; ++j) code[j] = codes[j];
    for (int j = 0; j < n; ++j) square[j] = codes[j] * codes[j];
    for (int j = 0; j < n; ++j) product[j] = static_cast<double>(x[j]) * static_cast<double>(codes[j]);
    return {tree_sum<n>(code), tree_sum<n>(square), tree_sum<n>(product)};
}

/// The bits of the finite FP16 nearest to a number of at least 0.
inline unsigned finite_half(float value) {
    const unsigned bits = float_to_half(value);
    return bits < 0x7bffu ? bits : 0x7bffu;
}

/// The FP16 bits nearest to largest / levels, or the next above where `levels` times the nearest would not
/// reach `largest`: subnormal FP16 is coarse.
inline unsigned covering_half(float largest, float levels) {
    const unsigned bits = finite_half(largest / levels);
    const bool reaches = half_to_float(bits) * levels >= largest * (1 - 0x1p-10f);
    return reaches || bits == 0x7bffu ? bits : bits + 1;
}

/// The magnitude up to which every K-quant gives zero: half of the least FP16 above 0.
inline constexpr float vanishing = 0x1p-25f;

}  // namespace gg::format
