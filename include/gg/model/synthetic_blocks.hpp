// Random weights block by block, on host and device alike: bytes are a function of the recipe and of the
// place, and every side gives the same ones.
//
//   MXFP4           codes uniform (mean square 137/16), three neighbouring exponents
//   Q8_0            codes uniform in -127..127, zero twice as likely (mean square 5397.5), one of 16 scales
//   F32, F16, BF16  mean + unit * (the sum of four uniform bytes - 510), nearly normal: 1021 values
//
// All bits come from Philox (gg/text/random.hpp): key = seed, counter = (place, tensor, purpose). Purpose 0
// gives codes: 16 bytes a counter, an MXFP4 block's codes, half of a Q8_0 block's, or four floats'. Purpose 1
// gives a byte for each block's scale. Includes nothing from the system.
#pragma once

#include "gg/format/encode_floats.hpp"
#include "gg/text/random.hpp"

namespace gg {

/// What the bytes of one tensor are a function of.
struct SyntheticRecipe {
    unsigned key[2];            ///< the seed, low word first
    unsigned tensor;            ///< its number
    int type;                   ///< the id that GGUF gives the element type: 0, 1, 30, 8 or 39
    int exponent;               ///< MXFP4: the scale byte of most blocks
    unsigned share;             ///< MXFP4: of 128, the blocks with one exponent more
    double mean;                ///< floats
    double unit;                ///< floats
    unsigned short scales[16];  ///< Q8_0: FP16 bits
};

/// The number of values that a float may have.
inline constexpr int synthetic_values = 4 * 255 + 1;

/// 128 random bits for a purpose.
GG_HD inline text::RandomWords synthetic_words(const SyntheticRecipe& recipe, unsigned purpose,
                                               unsigned long long at) {
    return text::philox(
        {{static_cast<unsigned>(at), static_cast<unsigned>(at >> 32), recipe.tensor, purpose}}, recipe.key[0],
        recipe.key[1]);
}

/// The words that hold the scale bytes of a block and its neighbours, and its byte in them.
GG_HD inline text::RandomWords synthetic_scale_words(const SyntheticRecipe& recipe,
                                                     unsigned long long block) {
    return synthetic_words(recipe, 1, block / 16);
}
GG_HD GG_INLINE unsigned synthetic_scale_byte(const text::RandomWords& words, unsigned long long block) {
    const auto i = static_cast<unsigned>(block % 16);
    return words.word[i / 4] >> 8 * (i % 4) & 255U;
}

/// A random word as four bytes, low first, at any address.
GG_HD GG_INLINE void store_synthetic_word(unsigned word, unsigned char* out) {
#if defined(__CUDA_ARCH__)
    for (int i = 0; i < 4; ++i) out[i] = static_cast<unsigned char>(word >> 8 * i);
#else
    __builtin_memcpy(out, &word, 4);
#endif
}

/// Four integers, each -128 among them made 0: encoders write none.
GG_HD GG_INLINE unsigned without_least(unsigned word) {
    const unsigned others = word ^ 0x80808080U;  // a byte is 0 where the integer is -128
    return word ^ (~(((others & 0x7F7F7F7FU) + 0x7F7F7F7FU) | others | 0x7F7F7F7FU));
}

/// An MXFP4 block, 17 bytes. Half of all have one exponent less, a share one more.
GG_HD inline void fill_synthetic_mxfp4(const SyntheticRecipe& recipe, unsigned scale,
                                       unsigned long long block, unsigned char* out) {
    const int up = (scale & 127U) < recipe.share ? 1 : 0, down = static_cast<int>(scale >> 7);
    out[0] = static_cast<unsigned char>(recipe.exponent + up - down);
    const text::RandomWords words = synthetic_words(recipe, 0, block);
    for (int i = 0; i < 4; ++i) store_synthetic_word(words.word[i], out + 1 + 4 * i);
}

/// A Q8_0 block, 34 bytes.
GG_HD inline void fill_synthetic_q8_0(const SyntheticRecipe& recipe, unsigned scale, unsigned long long block,
                                      unsigned char* out) {
    const unsigned half = recipe.scales[scale & 15U];
    out[0] = static_cast<unsigned char>(half);
    out[1] = static_cast<unsigned char>(half >> 8);
    for (unsigned part = 0; part < 2; ++part) {
        const text::RandomWords words = synthetic_words(recipe, 0, 2 * block + part);
        for (unsigned i = 0; i < 4; ++i)
            store_synthetic_word(without_least(words.word[i]), out + 2 + 16 * part + 4 * i);
    }
}

/// Which of the values a random word chooses.
GG_HD GG_INLINE unsigned synthetic_index(unsigned word) {
    const unsigned pairs = (word & 0x00FF00FFU) + (word >> 8 & 0x00FF00FFU);
    return (pairs & 0xFFFFU) + (pairs >> 16);
}

/// The bits of value `index` in the recipe's type. The product is rounded before it is added, on every side.
GG_HD inline unsigned synthetic_value(const SyntheticRecipe& recipe, int index) {
#if defined(__CUDA_ARCH__)
    const auto value =
        static_cast<float>(__dadd_rn(recipe.mean, __dmul_rn(recipe.unit, static_cast<double>(index - 510))));
#else
    const auto value = static_cast<float>(recipe.mean + recipe.unit * static_cast<double>(index - 510));
#endif
    if (recipe.type == 1) return format::float_to_half(value);
    if (recipe.type == 30) return format::float_to_bfloat(value);
    return float_bits(value);
}

}  // namespace gg
