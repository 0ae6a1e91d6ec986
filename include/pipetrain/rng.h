/* Counter-based random numbers: Philox-4x32-10.
 * Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
 *
 * A number is a pure function of (seed, domain, a, b, position). No stream is shared, so the same
 * sample is augmented, and the same activation dropped, on whatever rank the work happens to be. */
#ifndef PIPETRAIN_RNG_H
#define PIPETRAIN_RNG_H

#include <stdint.h>

/* What the numbers are for; keeps the streams apart. Never renumber: seeds would change meaning. */
typedef enum pt_rng_domain {
    PT_RNG_INIT = 1,      /* a = layer, b = parameter */
    PT_RNG_SHUFFLE = 2,   /* a = epoch, b = 0 */
    PT_RNG_AUGMENT = 3,   /* a = epoch, b = sample */
    PT_RNG_DROPOUT = 4,   /* a = layer << 32 | epoch, b = sample; position = element */
    PT_RNG_SYNTHETIC = 5, /* a = split, b = sample */
    PT_RNG_CHECK = 6,     /* gradient checks and self-tests */
    PT_RNG_VALIDATION = 7 /* which samples are held out: a = b = 0 */
} pt_rng_domain;

typedef struct pt_rng {
    uint32_t key[2];
    uint32_t counter[4]; /* [0] is the position in blocks of four numbers */
    uint32_t block[4];
    int used;    /* how many of block[] have been handed out, 0 … 4 */
    float spare; /* second value of the last Box-Muller pair */
    int have_spare;
} pt_rng;

/* The bare bijection: out = Philox-4x32-10(counter, key). */
void pt_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

void pt_rng_init(pt_rng *rng, uint64_t seed, pt_rng_domain domain, uint64_t a, uint64_t b);

/* The block of four numbers at `position`, independent of what was drawn before (for masks). */
void pt_rng_block_at(const pt_rng *rng, uint32_t position, uint32_t out[4]);

uint32_t pt_rng_u32(pt_rng *rng);
float pt_rng_unit(pt_rng *rng);                     /* uniform in [0, 1), 24 bits */
uint32_t pt_rng_below(pt_rng *rng, uint32_t bound); /* uniform in [0, bound), unbiased */
float pt_rng_normal(pt_rng *rng);                   /* mean 0, deviation 1 (Box-Muller) */

#endif
