/* Philox-4x32-10: ten rounds of multiply, exclusive-or and swap on a 128-bit counter.
 * Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
 *
 * How a stream gets its name. A stream has 64 bits of key and, position apart, 96 bits of counter,
 * while (seed, domain, a, b) are 224 bits. One Philox call folds them:
 *
 *     h          = Philox(counter = {a low, a high, b high, domain}, key = {seed low, seed high})
 *     key        = {h[0], h[1]}
 *     counter    = {position, b low, h[2], h[3]}
 *
 * For one seed, Philox is a bijection from (a, b high, domain) to h, and b low is kept as it is. So
 * under one seed two different (domain, a, b) never share a stream; under different seeds they do
 * with a chance of 2^-160. */
#include "pipetrain/rng.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { ROUNDS = 10, BLOCK = 4 };

static const uint32_t MULTIPLIER_0 = 0xD2511F53u, MULTIPLIER_1 = 0xCD9E8D57u;
static const uint32_t WEYL_0 = 0x9E3779B9u, WEYL_1 = 0xBB67AE85u; /* golden ratio, sqrt(3) - 1 */

void pt_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t p0 = (uint64_t)MULTIPLIER_0 * c0;
        uint64_t p1 = (uint64_t)MULTIPLIER_1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += WEYL_0;
        k1 += WEYL_1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void pt_rng_init(pt_rng *rng, uint64_t seed, pt_rng_domain domain, uint64_t a, uint64_t b)
{
    const uint32_t seed_words[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t name[4] = {(uint32_t)a, (uint32_t)(a >> 32), (uint32_t)(b >> 32),
                              (uint32_t)domain};
    uint32_t h[4];
    pt_philox(name, seed_words, h);
    *rng = (pt_rng){
        .key = {h[0], h[1]},
        .counter = {0, (uint32_t)b, h[2], h[3]},
        .used = BLOCK, /* nothing drawn yet: the first request makes the first block */
    };
}

void pt_rng_block_at(const pt_rng *rng, uint32_t position, uint32_t out[4])
{
    const uint32_t counter[4] = {position, rng->counter[1], rng->counter[2], rng->counter[3]};
    pt_philox(counter, rng->key, out);
}

uint32_t pt_rng_u32(pt_rng *rng)
{
    if (rng->used == BLOCK) {
        pt_philox(rng->counter, rng->key, rng->block);
        rng->counter[0]++;
        rng->used = 0;
    }
    return rng->block[rng->used++];
}

float pt_rng_unit(pt_rng *rng)
{
    /* 24 bits are what a float holds: every value is exact and 1 is never reached by rounding. */
    return (float)(pt_rng_u32(rng) >> 8) * 0x1p-24f;
}

/* The high word of u * bound is nearly uniform; throwing away the 2^32 mod bound lowest products
 * makes it exact.
 * Source: D. Lemire, "Fast random integer generation in an interval", TOMACS 29(1), 2019. */
uint32_t pt_rng_below(pt_rng *rng, uint32_t bound)
{
    assert(bound > 0);
    uint64_t product = (uint64_t)pt_rng_u32(rng) * bound;
    if ((uint32_t)product < bound) {
        uint32_t refused = -bound % bound; /* 2^32 mod bound */
        while ((uint32_t)product < refused)
            product = (uint64_t)pt_rng_u32(rng) * bound;
    }
    return (uint32_t)(product >> 32);
}

/* Source: G. Box and M. Muller, "A note on the generation of random normal deviates", 1958.
 * In double, so that rounding in the library's log, sin and cos seldom reaches the float. */
float pt_rng_normal(pt_rng *rng)
{
    if (rng->have_spare) {
        rng->have_spare = 0;
        return rng->spare;
    }
    static const double tau = 6.283185307179586476925;
    double u = ((double)pt_rng_u32(rng) + 1) * 0x1p-32; /* in (0, 1]: the log stays finite */
    double angle = tau * (double)pt_rng_u32(rng) * 0x1p-32;
    double radius = sqrt(-2 * log(u));
    rng->spare = (float)(radius * sin(angle));
    rng->have_spare = 1;
    return (float)(radius * cos(angle));
}
