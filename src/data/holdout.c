/* Which samples are held out: the first of a Fisher-Yates shuffle that goes no further. */
#include "pipetrain/holdout.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "pipetrain/rng.h"

/* Puts the samples that are held out first, in the order in which they are drawn. */
static void draw(uint32_t *samples, int64_t count, int64_t held, uint64_t seed)
{
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_VALIDATION, 0, 0);
    for (int64_t i = 0; i < held; i++) {
        int64_t pick = i + pt_rng_below(&rng, (uint32_t)(count - i));
        uint32_t sample = samples[pick];
        samples[pick] = samples[i];
        samples[i] = sample;
    }
}

/* Both parts in ascending order. */
static void divide(uint32_t *samples, int64_t count, int64_t held, bool *is_held)
{
    for (int64_t i = 0; i < held; i++)
        is_held[samples[i]] = true;
    uint32_t *learned = samples, *out = samples + count - held;
    for (int64_t i = 0; i < count; i++)
        *(is_held[i] ? out++ : learned++) = (uint32_t)i;
}

pt_status pt_holdout_init(int64_t count, double fraction, uint64_t seed, pt_holdout *ret_holdout,
                          pt_error *err)
{
    int64_t held = llround(fraction * (double)count);
    if (held < 1 || held >= count)
        return pt_fail(
            err, PT_EINPUT,
            "--validation %g: of %" PRId64 " samples, %" PRId64 " would be held out and %" PRId64
            " learned, and both parts need one; write a %s fraction, or give more samples",
            fraction, count, held, count - held, held < 1 ? "larger" : "smaller");
    uint32_t *samples = malloc((size_t)count * sizeof *samples);
    bool *is_held = calloc((size_t)count, sizeof *is_held);
    pt_status status =
        samples && is_held
            ? PT_OK
            : pt_fail(err, PT_ENOMEM, "no memory to divide %" PRId64 " samples", count);
    for (int64_t i = 0; status == PT_OK && i < count; i++)
        samples[i] = (uint32_t)i;
    if (status == PT_OK) {
        draw(samples, count, held, seed);
        divide(samples, count, held, is_held);
        *ret_holdout = (pt_holdout){samples, count - held, held};
    } else {
        free(samples);
    }
    free(is_held);
    return status;
}

void pt_holdout_clear(pt_holdout *holdout)
{
    free(holdout->samples);
    *holdout = (pt_holdout){0};
}
