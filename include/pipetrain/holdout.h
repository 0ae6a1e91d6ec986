/* Some samples of a training set are held out, to validate with: which ones is a function of the
 * seed and of how many samples there are, so that every rank finds the same without a message, and
 * a run that goes on finds them again. Of two fractions, the larger one holds out what the smaller
 * one does, and more. */
#ifndef PIPETRAIN_HOLDOUT_H
#define PIPETRAIN_HOLDOUT_H

#include <stdint.h>

#include "pipetrain/status.h"

/* The two parts, each in ascending order. pt_holdout_clear it; zeroed is fine. */
typedef struct pt_holdout {
    uint32_t *samples;     /* (learned + held): those to learn, then those held out */
    int64_t learned, held; /* at least 1 each */
} pt_holdout;

/* Holds out `fraction` of samples 0 … count - 1, rounded to a whole number. PT_EINPUT: one of the
 * parts would be empty. */
pt_status pt_holdout_init(int64_t count, double fraction, uint64_t seed, pt_holdout *ret_holdout,
                          pt_error *err);
void pt_holdout_clear(pt_holdout *holdout);

#endif
