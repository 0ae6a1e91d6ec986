/* Philox-4x32-10 for kernels: the numbers of pipetrain/rng.h, whose source and stream names
 * src/base/rng.c explains; a test holds the two together.
 * Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3. */
#ifndef PIPETRAIN_KERNELS_PHILOX_H
#define PIPETRAIN_KERNELS_PHILOX_H

#include "kernels/elements.h"

typedef struct pt_element_block {
    uint32_t at[4];
} pt_element_block;

/* A stream: everything but the position. */
typedef struct pt_element_stream {
    uint32_t key[2];
    uint32_t name[3]; /* counter words 1, 2, 3 */
} pt_element_stream;

PT_ELEMENT pt_element_block pt_element_philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                                              uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        const uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const pt_element_block out = {{c0, c1, c2, c3}};
    return out;
}

/* The stream (seed, domain, a, b) of pt_rng_init. */
PT_ELEMENT pt_element_stream pt_element_stream_of(uint64_t seed, uint32_t domain, uint64_t a,
                                                  uint64_t b)
{
    const pt_element_block h =
        pt_element_philox((uint32_t)a, (uint32_t)(a >> 32), (uint32_t)(b >> 32), domain,
                          (uint32_t)seed, (uint32_t)(seed >> 32));
    const pt_element_stream s = {{h.at[0], h.at[1]}, {(uint32_t)b, h.at[2], h.at[3]}};
    return s;
}

/* The block of four numbers at `position`: pt_rng_block_at. */
PT_ELEMENT pt_element_block pt_element_block_at(const pt_element_stream *s, uint32_t position)
{
    return pt_element_philox(position, s->name[0], s->name[1], s->name[2], s->key[0], s->key[1]);
}

#endif
