/* Sampler: the order of an epoch's samples; and the plan of an epoch: how that order falls apart
 * into optimizer steps and micro-batches. Every rank computes both for itself. */
#include "pipetrain/loader.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/rng.h"

struct pt_sampler {
    int64_t count;
    uint64_t seed;
    bool shuffle;
    uint32_t *samples; /* (count): what the order is of; NULL: 0, 1, 2, … */
    uint32_t *order;   /* (count) */
};

/* NULL when memory ran out, or where there is nothing to copy. */
static uint32_t *copy_of(const uint32_t *samples, int64_t count)
{
    size_t bytes = (size_t)count * sizeof *samples;
    uint32_t *copy = samples ? malloc(bytes) : NULL;
    return copy ? memcpy(copy, samples, bytes) : NULL;
}

pt_status pt_sampler_new_of(const uint32_t *samples, int64_t count, uint64_t seed, bool shuffle,
                            pt_sampler **ret_sampler, pt_error *err)
{
    if (count < 1 || count > UINT32_MAX)
        return pt_fail(err, PT_EINPUT,
                       "an epoch cannot hold %" PRId64 " samples: 1 … %" PRIu32 " are possible",
                       count, UINT32_MAX);
    pt_sampler *sampler = calloc(1, sizeof *sampler);
    uint32_t *order = malloc((size_t)count * sizeof *order), *copy = copy_of(samples, count);
    if (!sampler || !order || (samples && !copy)) {
        free(sampler);
        free(order);
        free(copy);
        return pt_fail(err, PT_ENOMEM, "no memory for the order of %" PRId64 " samples", count);
    }
    sampler->count = count;
    sampler->seed = seed;
    sampler->shuffle = shuffle;
    sampler->samples = copy;
    sampler->order = order;
    pt_sampler_epoch(sampler, 0);
    *ret_sampler = sampler;
    return PT_OK;
}

pt_status pt_sampler_new(int64_t count, uint64_t seed, bool shuffle, pt_sampler **ret_sampler,
                         pt_error *err)
{
    return pt_sampler_new_of(/*samples=*/NULL, count, seed, shuffle, ret_sampler, err);
}

void pt_sampler_free(pt_sampler *sampler)
{
    if (!sampler)
        return;
    free(sampler->samples);
    free(sampler->order);
    free(sampler);
}

void pt_sampler_epoch(pt_sampler *sampler, uint32_t epoch)
{
    uint32_t *order = sampler->order;
    /* Always from the plain order, so that epoch 7 is the same whether or not 0 … 6 were made. */
    for (int64_t i = 0; i < sampler->count; i++)
        order[i] = sampler->samples ? sampler->samples[i] : (uint32_t)i;
    if (!sampler->shuffle)
        return;
    pt_rng rng;
    pt_rng_init(&rng, sampler->seed, PT_RNG_SHUFFLE, epoch, 0);
    for (int64_t i = sampler->count - 1; i > 0; i--) {
        uint32_t pick = pt_rng_below(&rng, (uint32_t)(i + 1));
        uint32_t sample = order[pick];
        order[pick] = order[i];
        order[i] = sample;
    }
}

const uint32_t *pt_sampler_at(const pt_sampler *sampler, int64_t first, int64_t n)
{
    assert(first >= 0 && n >= 0 && first + n <= sampler->count);
    (void)n;
    return sampler->order + first;
}

/* ---- plan of an epoch ----------------------------------------------------------------------- */

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void check_plan(const pt_epoch_plan *plan)
{
    assert(plan->samples >= 1 && plan->batch >= 1);
    assert(plan->micro_batch >= 1 && plan->micro_batch <= plan->batch);
    (void)plan;
}

int64_t pt_epoch_steps(const pt_epoch_plan *plan)
{
    check_plan(plan);
    return divide_up(plan->samples, plan->batch);
}

int64_t pt_epoch_per_step(const pt_epoch_plan *plan)
{
    check_plan(plan);
    return divide_up(plan->batch, plan->micro_batch);
}

int64_t pt_epoch_micro_batches(const pt_epoch_plan *plan)
{
    return pt_epoch_micro_batches_of(plan, pt_epoch_steps(plan));
}

int64_t pt_epoch_micro_batches_of(const pt_epoch_plan *plan, int64_t steps)
{
    int64_t full = plan->samples / plan->batch;
    int64_t whole = smaller(steps, full) * pt_epoch_per_step(plan);
    return steps <= full ? whole
                         : whole + divide_up(plan->samples % plan->batch, plan->micro_batch);
}

pt_epoch_item pt_epoch_item_at(const pt_epoch_plan *plan, int64_t m)
{
    assert(m >= 0 && m < pt_epoch_micro_batches(plan));
    /* Only the last step can have fewer micro-batches than the others, so that dividing is right
     * for it too. */
    int64_t per_step = pt_epoch_per_step(plan);
    int64_t step = m / per_step;
    int64_t offset = m % per_step * plan->micro_batch; /* within the step */
    pt_epoch_item item = {.step = step, .first = step * plan->batch + offset};
    item.step_samples = smaller(plan->batch, plan->samples - step * plan->batch);
    item.samples = smaller(plan->micro_batch, item.step_samples - offset);
    item.first_of_step = offset == 0;
    item.last_of_step = offset + item.samples == item.step_samples;
    return item;
}

/* Adds the micro-batch sizes of a step of `samples` samples to sizes[n], largest first, and returns
 * the new n. */
static int add_sizes(int64_t samples, int64_t micro_batch, int64_t *sizes, int n)
{
    const int64_t found[2] = {samples >= micro_batch ? micro_batch : 0, samples % micro_batch};
    for (int f = 0; f < 2; f++) {
        int at = 0;
        while (at < n && sizes[at] > found[f])
            at++;
        if (found[f] == 0 || (at < n && sizes[at] == found[f]))
            continue;
        for (int k = n++; k > at; k--)
            sizes[k] = sizes[k - 1];
        sizes[at] = found[f];
    }
    return n;
}

int pt_epoch_sizes(const pt_epoch_plan *plan, int64_t ret_sizes[4])
{
    check_plan(plan);
    int n = 0;
    if (plan->samples >= plan->batch)
        n = add_sizes(plan->batch, plan->micro_batch, ret_sizes, n);
    return add_sizes(plan->samples % plan->batch, plan->micro_batch, ret_sizes, n);
}
