/* Sampler and loader: which samples a micro-batch holds, and its bytes.
 *
 * Both are pure functions of (seed, epoch, position), so every rank computes the same order without
 * a message: the first stage reads the inputs, the last stage the answers, dropout asks who the
 * samples are. */
#ifndef PIPETRAIN_LOADER_H
#define PIPETRAIN_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/dataset.h"
#include "pipetrain/partition.h"
#include "pipetrain/status.h"

/* ---- sampler ----------------------------------------------------------------------------------
 */
typedef struct pt_sampler pt_sampler;

/* shuffle: Fisher-Yates keyed by (seed, epoch); otherwise 0, 1, 2, … */
pt_status pt_sampler_new(int64_t count, uint64_t seed, bool shuffle, pt_sampler **ret_sampler,
                         pt_error *err);
/* The same order of these samples, which are copied: where the one above has i, samples[i]. */
pt_status pt_sampler_new_of(const uint32_t *samples, int64_t count, uint64_t seed, bool shuffle,
                            pt_sampler **ret_sampler, pt_error *err);
void pt_sampler_free(pt_sampler *sampler);
/* Makes the order of one epoch. */
void pt_sampler_epoch(pt_sampler *sampler, uint32_t epoch);
/* The samples at positions [first, first + n) of the epoch; valid until the next pt_sampler_epoch.
 */
const uint32_t *pt_sampler_at(const pt_sampler *sampler, int64_t first, int64_t n);

/* How one epoch falls apart. No sample is dropped: the last step and the last micro-batch of a step
 * may be short.
 *   samples 10, batch 4, micro-batch 3:   step 0: 3 1 | step 1: 3 1 | step 2: 2              */
typedef struct pt_epoch_plan {
    int64_t samples;     /* in the epoch */
    int64_t batch;       /* samples per optimizer step */
    int64_t micro_batch; /* samples per pipeline item, <= batch */
} pt_epoch_plan;

int64_t pt_epoch_steps(const pt_epoch_plan *plan);         /* ceil(samples / batch) */
int64_t pt_epoch_per_step(const pt_epoch_plan *plan);      /* M = ceil(batch / micro_batch) */
int64_t pt_epoch_micro_batches(const pt_epoch_plan *plan); /* in the whole epoch */
/* Micro-batches in the first `steps` steps of an epoch. */
int64_t pt_epoch_micro_batches_of(const pt_epoch_plan *plan, int64_t steps);

typedef struct pt_epoch_item {
    int64_t step;         /* of the epoch */
    int64_t first;        /* position of its first sample */
    int64_t samples;      /* in this micro-batch, >= 1 */
    int64_t step_samples; /* in its whole step: the gradient is averaged over these */
    bool first_of_step, last_of_step;
} pt_epoch_item;

/* Micro-batch m of the epoch. */
pt_epoch_item pt_epoch_item_at(const pt_epoch_plan *plan, int64_t m);

/* The distinct micro-batch sizes that occur, largest first; returns how many (at most 4). */
int pt_epoch_sizes(const pt_epoch_plan *plan, int64_t ret_sizes[4]);

/* ---- loader -----------------------------------------------------------------------------------
 */
typedef struct pt_augmentation {
    int crop;  /* so many rows and columns of zeros around the image, which is normalised already,
                  then a random crop of the original size; 0: off */
    bool flip; /* mirrored left-right with probability 1/2 */
} pt_augmentation;

/* Writes n normalised inputs (n, shape) row-major. Augmentation is keyed by (seed, epoch, sample)
 * and may be NULL. Crop and flip need a (C, H, W) shape. */
void pt_load_inputs(const pt_dataset *dataset, const pt_shape *shape,
                    const pt_normalisation *normalisation, const pt_augmentation *augmentation,
                    uint64_t seed, uint32_t epoch, const uint32_t *samples, int64_t n, float *dst);
void pt_load_labels(const pt_dataset *dataset, const uint32_t *samples, int64_t n, int32_t *dst);
void pt_load_targets(const pt_dataset *dataset, int64_t outputs, const uint32_t *samples, int64_t n,
                     float *dst);

#endif
