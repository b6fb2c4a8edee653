// Floats to blocks of Q4_K and Q5_K, by search for the least squared error, all elements weighted alike.
//
// A block has eight parts of 32 elements, x ~ scale * q - minimum, minimum >= 0. For each part, codes are
// made with steps around (greatest - least) / top; least squares give scale and minimum for each; the best is
// improved by turns of nearest codes and least squares. Then d and dmin are the largest scale and minimum
// over 63, each part takes the best of nine 6-bit pairs around its own, and least squares over the block give
// a better d and dmin, kept if the error falls. The plain encoding from extremes alone is a candidate too, so
// the result is never worse than that.
//
// Floats are finite. Errors: gg::Error (invalid_request) for magnitudes above 63 * 65504.
#pragma once

#include <cmath>
#include <cstring>

#include "gg/format/encode_k_search.hpp"
#include "gg/format/q4_k.hpp"
#include "gg/format/q5_k.hpp"

namespace gg::format {

/// Finds the header of one block; `top` is the largest code, 15 or 31.
template <int top>
class KMinimumEncoder {
  public:
    /// The numbers of a block's header.
    struct Header {
        unsigned d = 0, dmin = 0;  ///< FP16 bits
        int scale[8] = {}, minimum[8] = {};
        double error = 0;  ///< sum of squares over the block
        Sums sums[8] = {};

        float scale_of(int part) const { return half_to_float(d) * static_cast<float>(scale[part]); }
        float minimum_of(int part) const { return half_to_float(dmin) * static_cast<float>(minimum[part]); }
    };

    /// `x` are 256 floats.
    explicit KMinimumEncoder(const float* x) : x_(x) {
        for (int part = 0; part < 8; ++part) {
            for (int j = 0; j < 32; ++j) {
                const double value = x[32 * part + j];
                sum_[part] += value;
                square_[part] += value * value;
            }
        }
    }

    Header search() const {
        Fit plain[8], searched[8];
        for (int part = 0; part < 8; ++part) {
            plain[part] = fit_extremes(part);
            searched[part] = search_part(part, plain[part]);
        }
        const Header best = refine(choose(covering_scales(searched), searched, 1), searched);
        const Header simple = choose(covering_scales(plain), plain, 0);
        return simple.error < best.error ? simple : best;
    }

    /// The 32 codes of a part.
    void codes(const Header& header, int part, float* q) const {
        codes(part, header.scale_of(part), header.minimum_of(part), q);
    }

  private:
    struct Fit {
        float scale = 0, minimum = 0;
        double error = 0;
    };
    static constexpr int refinements = 2;

    void codes(int part, float scale, float minimum, float* q) const {
        const float inverse = reciprocal(scale);
        nearest_codes<32>(x_ + 32 * part, inverse, minimum * inverse, top, 0, q);
    }

    double error_of(int part, const Sums& q, double scale, double minimum) const {
        const double error = square_[part] + scale * (scale * q.square - 2 * q.product) +
                             minimum * (32 * minimum + 2 * (sum_[part] - scale * q.code));
        return error > 0 ? error : 0;
    }

    /// Codes 0 and `top` for the least (at most 0) and the greatest element.
    Fit fit_extremes(int part) const {
        float least = 0, greatest = x_[32 * part];
        for (int j = 0; j < 32; ++j) {
            const float value = x_[32 * part + j];
            least = value < least ? value : least;
            greatest = value > greatest ? value : greatest;
        }
        return {(greatest - least) / top, -least, 0};
    }

    /// Least squares of scale and minimum for given codes.
    Fit solve(int part, const Sums& q) const {
        const double determinant = 32 * q.square - q.code * q.code;
        double scale = 0, minimum = -1;
        if (determinant > 0) {
            scale = (32 * q.product - q.code * sum_[part]) / determinant;
            minimum = (q.code * q.product - q.square * sum_[part]) / determinant;
        }
        if (minimum < 0 || scale < 0) {
            scale = q.square > 0 ? q.product / q.square : 0;
            minimum = 0;
        }
        if (scale <= 0) {
            scale = 0;
            minimum = sum_[part] < 0 ? -sum_[part] / 32 : 0;
        }
        return {static_cast<float>(scale), static_cast<float>(minimum), error_of(part, q, scale, minimum)};
    }

    Fit search_part(int part, const Fit& plain) const {
        float q[32];
        codes(part, plain.scale, plain.minimum, q);
        Fit best = plain;
        best.error = error_of(part, sums_of<32>(x_ + 32 * part, q), plain.scale, plain.minimum);
        const auto consider = [&](float scale, float minimum) {
            codes(part, scale, minimum, q);
            const Fit fit = solve(part, sums_of<32>(x_ + 32 * part, q));
            const bool better = fit.error < best.error;
            if (better) best = fit;
            return better;
        };
        // Steps from (range / (top - 1)) to (range / (top + 1.4)): smaller ones cut the extremes off.
        for (int step = -10; step <= 14; step += 2)
            consider(plain.scale * top / (top + 0.1f * static_cast<float>(step)), plain.minimum);
        for (int turn = 0; turn < 4 && consider(best.scale, best.minimum); ++turn) continue;
        return best;
    }

    static Header covering_scales(const Fit* fits) {
        float scale = 0, minimum = 0;
        for (int part = 0; part < 8; ++part) {
            scale = std::fmax(scale, fits[part].scale);
            minimum = std::fmax(minimum, fits[part].minimum);
        }
        Header header;
        header.d = covering_half(scale, 63);
        header.dmin = covering_half(minimum, 63);
        return header;
    }

    static int nearest_level(float value, float unit) {
        const float level = value * reciprocal(unit);
        return level < 63 ? static_cast<int>(level + 0.5f) : 63;
    }

    /// The best 6-bit pairs for header.d and header.dmin, up to `reach` from the nearest.
    Header choose(Header header, const Fit* fits, int reach) const {
        header.error = 0;
        for (int part = 0; part < 8; ++part) {
            const int scale = nearest_level(fits[part].scale, half_to_float(header.d));
            const int minimum = nearest_level(fits[part].minimum, half_to_float(header.dmin));
            double least = HUGE_VAL;
            for (int pair = 0; pair < (2 * reach + 1) * (2 * reach + 1); ++pair) {
                const int a = scale - reach + pair / (2 * reach + 1);
                const int b = minimum - reach + pair % (2 * reach + 1);
                if (a < 0 || a > 63 || b < 0 || b > 63) continue;
                try_pair(header, part, a, b, least);
            }
            header.error += least;
        }
        return header;
    }

    void try_pair(Header& header, int part, int scale, int minimum, double& least) const {
        const float a = half_to_float(header.d) * static_cast<float>(scale);
        const float b = half_to_float(header.dmin) * static_cast<float>(minimum);
        float q[32];
        codes(part, a, b, q);
        const Sums sums = sums_of<32>(x_ + 32 * part, q);
        const double error = error_of(part, sums, a, b);
        if (error >= least) return;
        least = error;
        header.scale[part] = scale;
        header.minimum[part] = minimum;
        header.sums[part] = sums;
    }

    /// Least squares of d and dmin with all else given, then the pairs anew.
    Header refine(Header best, const Fit* fits) const {
        for (int turn = 0; turn < refinements; ++turn) {
            double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
            for (int part = 0; part < 8; ++part) {
                const double scale = best.scale[part], minimum = best.minimum[part];
                const Sums& q = best.sums[part];
                aa += scale * scale * q.square;
                ab -= scale * minimum * q.code;
                bb += minimum * minimum * 32;
                ax += scale * q.product;
                bx -= minimum * sum_[part];
            }
            const double determinant = aa * bb - ab * ab;
            double d = 0, dmin = 0;
            if (determinant > 0) {
                d = (bb * ax - ab * bx) / determinant;
                dmin = (aa * bx - ab * ax) / determinant;
            } else if (aa > 0) {
                d = ax / aa;
            }
            if (d <= 0 || dmin < 0) return best;
            Header next = best;
            next.d = finite_half(static_cast<float>(d));
            next.dmin = finite_half(static_cast<float>(dmin));
            if (next.d == best.d && next.dmin == best.dmin) return best;
            next = choose(next, fits, 1);
            if (next.error >= best.error) return best;
            best = next;
        }
        return best;
    }

    const float* x_;
    double sum_[8] = {}, square_[8] = {};  ///< of x and x * x
};

/// The inverse of KScale: 12 bytes at `s`.
inline void store_k_scales(const int* scale, const int* minimum, unsigned char* s) {
    for (int part = 0; part < 4; ++part) {
        s[part] = static_cast<unsigned char>(scale[part] | (scale[part + 4] >> 4) << 6);
        s[part + 4] = static_cast<unsigned char>(minimum[part] | (minimum[part + 4] >> 4) << 6);
        s[part + 8] = static_cast<unsigned char>((scale[part + 4] & 15) | (minimum[part + 4] & 15) << 4);
    }
}

/// The whole block but for the codes, which `store` takes as (part, 32 codes).
template <int top, class Store>
inline void encode_k_minimum(const float* x, unsigned char* block, int bytes, const char* format,
                             Store&& store) {
    std::memset(block, 0, static_cast<std::size_t>(bytes));
    const float largest = std::fabs(largest_element<256>(x));
    if (largest > 63.0f * 65504.0f) refuse_magnitude(format, largest);
    if (largest <= vanishing) return;
    const KMinimumEncoder<top> encoder(x);
    const auto header = encoder.search();
    store_scale(half_to_float(header.d), block, format, largest);
    store_scale(half_to_float(header.dmin), block + 2, format, largest);
    store_k_scales(header.scale, header.minimum, block + 4);
    for (int part = 0; part < 8; ++part) {
        float q[32];
        encoder.codes(header, part, q);
        store(part, q);
    }
}

/// 256 floats to one block of 144 bytes.
inline void encode_q4_k(const float* x, unsigned char* block) {
    encode_k_minimum<15>(x, block, Q4_K::bytes, "Q4_K", [block](int part, const float* q) {
        unsigned char* nibbles = block + 16 + 32 * (part / 2);
        for (int j = 0; j < 32; ++j)
            nibbles[j] =
                static_cast<unsigned char>(nibbles[j] | static_cast<int>(q[j]) << (part % 2 ? 4 : 0));
    });
}

/// 256 floats to one block of 176 bytes.
inline void encode_q5_k(const float* x, unsigned char* block) {
    encode_k_minimum<31>(x, block, Q5_K::bytes, "Q5_K", [block](int part, const float* q) {
        unsigned char* nibbles = block + 48 + 32 * (part / 2);
        for (int j = 0; j < 32; ++j) {
            const int code = static_cast<int>(q[j]);
            nibbles[j] = static_cast<unsigned char>(nibbles[j] | (code & 15) << (part % 2 ? 4 : 0));
            block[16 + j] = static_cast<unsigned char>(block[16 + j] | (code >> 4) << part);
        }
    });
}

}  // namespace gg::format
