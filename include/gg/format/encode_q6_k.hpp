// Floats to blocks of Q6_K, by search for the least squared error, all elements weighted alike.
//
// A block has sixteen parts of 16 elements, x ~ scale * q, q from -32 to 31. For each part, codes are made
// with steps that bring the extreme element to about -32 or 31; least squares give the scale for each, and
// the best is improved by turns of nearest codes and least squares. Then d is the extreme scale over -128,
// each part takes the best of three signed bytes around its own, and least squares over the block give a
// better d, kept if the error falls. The plain encoding, extremes to -32, is a candidate too, so the result
// is never worse than that.
//
// Floats are finite. Errors: gg::Error (invalid_request) for magnitudes above 128 * 32 * 65504.
#pragma once

#include <cmath>
#include <cstring>

#include "gg/format/encode_k_search.hpp"
#include "gg/format/q6_k.hpp"

namespace gg::format {

/// Finds the header of one block.
class Q6KEncoder {
  public:
    /// The numbers of a block's header.
    struct Header {
        float d = 0;  ///< an FP16 number
        int scale[16] = {};
        double error = 0;  ///< sum of squares over the block
        Sums sums[16] = {};
    };

    /// `x` are 256 floats.
    explicit Q6KEncoder(const float* x) : x_(x) {
        for (int j = 0; j < 256; ++j)
            square_[j / 16] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
    }

    Header search() const {
        float plain[16], searched[16];
        for (int part = 0; part < 16; ++part) {
            plain[part] = largest_element<16>(x_ + 16 * part) / -32;
            searched[part] = search_part(part, plain[part]);
        }
        const Header best = refine(choose(covering_scale(searched), searched, 1), searched);
        const Header simple = choose(covering_scale(plain), plain, 0);
        return simple.error < best.error ? simple : best;
    }

    /// The 16 codes of a part, from -32 to 31.
    void codes(int part, float scale, float* q) const {
        nearest_codes<16>(x_ + 16 * part, reciprocal(scale), 32, 63, 32, q);
    }

  private:
    static constexpr int refinements = 2;

    Sums sums(int part, float scale) const {
        float q[16];
        codes(part, scale, q);
        return sums_of<16>(x_ + 16 * part, q);
    }

    double error_of(int part, const Sums& q, double scale) const {
        const double error = square_[part] + scale * (scale * q.square - 2 * q.product);
        return error > 0 ? error : 0;
    }

    float search_part(int part, float plain) const {
        float best = plain;
        double least = error_of(part, sums(part, plain), plain);
        const auto consider = [&](float scale) {
            const Sums q = sums(part, scale);
            if (q.square <= 0) return false;
            const double solved = q.product / q.square;
            const double error = error_of(part, q, solved);
            const bool better = error < least;
            if (better) {
                least = error;
                best = static_cast<float>(solved);
            }
            return better;
        };
        // The extreme to -31 .. -33, or to 30 .. 32 where the scale has the other sign.
        for (int step = -5; step <= 5; ++step) {
            const float shift = 0.2f * static_cast<float>(step);
            consider(plain * (32 / (32 + shift)));
            consider(plain * (-32 / (31 + shift)));
        }
        for (int turn = 0; turn < 3 && consider(best); ++turn) continue;
        return best;
    }

    /// d such that the extreme scale becomes -128.
    static Header covering_scale(const float* scales) {
        const float extreme = largest_element<16>(scales);
        const float magnitude = half_to_float(covering_half(std::fabs(extreme), 128));
        Header header;
        header.d = extreme > 0 ? -magnitude : magnitude;
        return header;
    }

    static int level(float value) {
        if (value <= -128) return -128;
        return value >= 127 ? 127 : static_cast<int>(value + (value < 0 ? -0.5f : 0.5f));
    }

    /// The best scales for header.d, up to `reach` from the nearest.
    Header choose(Header header, const float* scales, int reach) const {
        header.error = 0;
        for (int part = 0; part < 16; ++part) {
            const int nearest = level(scales[part] * reciprocal(header.d));
            double least = HUGE_VAL;
            for (int scale = nearest - reach; scale <= nearest + reach; ++scale) {
                if (scale < -128 || scale > 127) continue;
                const float step = header.d * static_cast<float>(scale);
                const Sums q = sums(part, step);
                const double error = error_of(part, q, step);
                if (error >= least) continue;
                least = error;
                header.scale[part] = scale;
                header.sums[part] = q;
            }
            header.error += least;
        }
        return header;
    }

    /// Least squares of d with all else given, then the scales anew.
    Header refine(Header best, const float* scales) const {
        for (int turn = 0; turn < refinements; ++turn) {
            double products = 0, squares = 0;
            for (int part = 0; part < 16; ++part) {
                const double scale = best.scale[part];
                products += scale * best.sums[part].product;
                squares += scale * scale * best.sums[part].square;
            }
            if (squares <= 0) return best;
            const double solved = products / squares;
            const float magnitude = half_to_float(finite_half(static_cast<float>(std::fabs(solved))));
            Header next = best;
            next.d = solved < 0 ? -magnitude : magnitude;
            if (next.d == best.d) return best;
            next = choose(next, scales, 1);
            if (next.error >= best.error) return best;
            best = next;
        }
        return best;
    }

    const float* x_;
    double square_[16] = {};  ///< sums of x * x
};

/// 256 floats to one block of 210 bytes.
inline void encode_q6_k(const float* x, unsigned char* block) {
    std::memset(block, 0, Q6_K::bytes);
    const float largest = std::fabs(largest_element<256>(x));
    if (largest > 128.0f * 32.0f * 65504.0f) refuse_magnitude("Q6_K", largest);
    if (largest <= vanishing) return;
    const Q6KEncoder encoder(x);
    const Q6KEncoder::Header header = encoder.search();
    store_scale(header.d, block + 208, "Q6_K", largest);
    for (int part = 0; part < 16; ++part) {
        block[192 + part] = static_cast<unsigned char>(header.scale[part]);
        float q[16];
        encoder.codes(part, header.d * static_cast<float>(header.scale[part]), q);
        // Eight runs of 32 elements a block, four in each half; see q6_k.hpp.
        const int run = part / 2 % 4, first = 16 * (part % 2);
        unsigned char* low = block + 64 * (part / 8) + 32 * (run % 2) + first;
        unsigned char* high = block + 128 + 32 * (part / 8) + first;
        for (int j = 0; j < 16; ++j) {
            const int code = static_cast<int>(q[j]) + 32;
            low[j] = static_cast<unsigned char>(low[j] | (code & 15) << (run / 2 * 4));
            high[j] = static_cast<unsigned char>(high[j] | (code >> 4) << (2 * run));
        }
    }
}

}  // namespace gg::format
