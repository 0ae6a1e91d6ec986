/* How weights change: optimizers, predictors and learning-rate schedules, each a table of rows. All
 * of them are linear maps on flat fp32 buffers that the backend applies in one fused pass.
 *
 * Notation (algorithms): θ weights, v momentum buffer, g gradient, η learning rate, γ momentum,
 * λ weight decay, n staleness (updates between a forward and its own backward). */
#ifndef PIPETRAIN_LEARN_H
#define PIPETRAIN_LEARN_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/backend.h"
#include "pipetrain/status.h"

/* ---- learning rate ----------------------------------------------------------------------------
 */
enum { PT_MAX_MILESTONES = 16 };

typedef struct pt_lr_spec {
    const char *schedule; /* "constant", "milestones", "cosine" */
    double base;          /* η at the top */
    int64_t warmup;       /* steps of linear warm-up: step t < warmup has η·(t+1)/warmup */
    int64_t total;        /* steps of the whole run: where cosine ends */
    double factor;        /* milestones: multiplied at each */
    int64_t milestones[PT_MAX_MILESTONES]; /* steps, ascending */
    int n_milestones;
    double floor; /* cosine: lowest rate, as a fraction of base */
} pt_lr_spec;

const char *const *pt_lr_names(void);

/* η of optimizer step t = 0, 1, 2 … A pure function: predictors ask for steps to come.
 * cosine (Loshchilov & Hutter, ICLR 2017, eq. 5): floor + (1-floor)·(1 + cos(π·u))/2, with
 * u = (t - warmup)/(total - warmup), times base. */
double pt_lr_at(const pt_lr_spec *spec, int64_t step);

/* ---- optimizers -------------------------------------------------------------------------------
 */
typedef struct pt_optimizer_spec {
    const char *name; /* "sgd", "nesterov" */
    double momentum, decay;
} pt_optimizer_spec;

typedef struct pt_optimizer_row {
    const char *name, *help;
    int state_buffers; /* flat buffers beside θ and g: velocity */
    /* foresight: what the same pass makes for the next forward; NULL: nothing */
    pt_status (*step)(pt_backend *b, const pt_optimizer_spec *spec, double lr, double scale,
                      size_t n, float *dev_theta, float *const dev_state[],
                      const float *dev_gradient, const pt_foresight *foresight, pt_error *err);
} pt_optimizer_row;

const pt_optimizer_row *pt_optimizer_find(const char *name); /* or NULL */
const char *const *pt_optimizer_names(void);

/* ---- predictors -------------------------------------------------------------------------------
 */
/* Prediction for staleness n before step t: θ̂ = a·θ + b·v. */
typedef struct pt_prediction {
    float a, b;
} pt_prediction;

typedef struct pt_predictor_row {
    const char *name, *help;
    /* Refuses a combination that has no meaning, with the reason (msnag with nesterov: the drift of
     * plain momentum is not Nesterov's). */
    pt_status (*accepts)(const pt_optimizer_spec *optimizer, pt_error *err);
    pt_prediction (*predict)(const pt_optimizer_spec *optimizer, const pt_lr_spec *lr, int64_t step,
                             int staleness);
} pt_predictor_row;

const pt_predictor_row *pt_predictor_find(const char *name); /* or NULL; "none" has a row */
const char *const *pt_predictor_names(void);

#endif
