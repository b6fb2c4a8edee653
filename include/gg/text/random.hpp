// Counter-based random numbers for sampling: a value is a pure function of (seed, token id, step), so any
// number of threads, in any order, on host or device, draws the same one.
//
//   Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
//   key = seed (low word, high word), counter = (token id, 0, step low word, step high word).
//
//   Gumbel noise: w = (v | 1) * 2^-64 for the first two words v = word1 * 2^32 + word0, uniform in (0, 1);
//   E = -log(1 - w) is exponential, -log(E) is Gumbel(0, 1). Near w = 0, where the large values come from,
//   log(1 - w) is taken as w * log(y) / (y - 1) with y = fl(1 - w) (Kahan), so that the upper tail has
//   float's relative resolution up to 44.4, and two of 200,000 ids practically never tie. Below, it ends at
//   -log(-log(2^-24)) = -2.82.
//
// Same bits on every side as long as gg::log's products are not fused into its sums: see gg/text/logit.hpp.
// Includes nothing from the system.
#pragma once

#include "gg/core/device.hpp"
#include "gg/core/math.hpp"

namespace gg::text {

/// Four 32-bit words: a Philox counter and its random output.
struct RandomWords {
    unsigned word[4];
};

/// Philox4x32 with 10 rounds.
GG_HD inline RandomWords philox(RandomWords counter, unsigned key0, unsigned key1) {
    for (int round = 0; round < 10; ++round) {
        const unsigned long long product0 = 0xD2511F53ULL * counter.word[0];
        const unsigned long long product1 = 0xCD9E8D57ULL * counter.word[2];
        counter = {{static_cast<unsigned>(product1 >> 32) ^ counter.word[1] ^ key0,
                    static_cast<unsigned>(product1),
                    static_cast<unsigned>(product0 >> 32) ^ counter.word[3] ^ key1,
                    static_cast<unsigned>(product0)}};
        key0 += 0x9E3779B9U;
        key1 += 0xBB67AE85U;
    }
    return counter;
}

/// The Gumbel(0, 1) value of 64 random bits.
GG_HD inline float gumbel(unsigned long long bits) {
    const float w = static_cast<float>(bits | 1U) * 0x1p-64F;
    float y = 1.0F - w;
    if (y < 0x1p-24F) y = 0x1p-24F;
    const float exponential = y == 1.0F ? w : w * gg::log(y) / (y - 1.0F);
    return -gg::log(exponential);
}

/// The Gumbel(0, 1) noise of one token id at one step.
GG_HD inline float gumbel_noise(unsigned long long seed, unsigned id, unsigned long long step) {
    const RandomWords counter = {{id, 0U, static_cast<unsigned>(step), static_cast<unsigned>(step >> 32)}};
    const RandomWords random =
        philox(counter, static_cast<unsigned>(seed), static_cast<unsigned>(seed >> 32));
    return gumbel(static_cast<unsigned long long>(random.word[1]) << 32 | random.word[0]);
}

}  // namespace gg::text
