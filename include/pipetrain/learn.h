/* How weights change: optimizers, predictors and learning-rate schedules, each a table of rows. All
 * of them are maps on flat fp32 buffers that the backend applies in one fused pass.
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
    /* A late stage begins slowly (PipeMare, Yang et al., MLSys 2021, T1): step t has the rate
     * divided by delay^(1 - min(t/fade, 1)). No more than 1 update late, or fade 0: nothing is
     * divided. t counts from the first step that may be late: those before are not divided. */
    double delay;
    int64_t fade; /* steps */
    int64_t first_late;
} pt_lr_spec;

const char *const *pt_lr_names(void);

/* η of optimizer step t = 0, 1, 2 … A pure function: predictors ask for steps to come.
 * cosine (Loshchilov & Hutter, ICLR 2017, eq. 5): floor + (1-floor)·(1 + cos(π·u))/2, with
 * u = (t - warmup)/(total - warmup), times base. */
double pt_lr_at(const pt_lr_spec *spec, int64_t step);

/* ---- optimizers -------------------------------------------------------------------------------
 */
typedef struct pt_optimizer_spec {
    const char *name; /* "sgd", "nesterov", "adam", "adamw", "nadam-async" */
    double decay;
    double momentum;          /* sgd, nesterov */
    double beta1, beta2, eps; /* adam, adamw, nadam-async */
} pt_optimizer_spec;

enum { PT_MOST_STATE_BUFFERS = 2 };

/* Flat buffers of n elements, on the device. */
typedef struct pt_optimizer_buffers {
    size_t n;
    float *theta;
    float *state[PT_MOST_STATE_BUFFERS]; /* v; or m and v */
    const float *gradient;
} pt_optimizer_buffers;

/* Prediction for staleness n before step t: θ̂ = a·θ + b·u, u = v for sgd and nesterov and
 * m/(√v/√(1-β2^t) + ε) for adam and adamw; or, with rates, the loop of pt_adam_foresight. */
typedef struct pt_prediction {
    float a, b;
    pt_rates rates;
    /* In a step: foreseen from where it would lead, while θ and the state stay as they are. */
    bool apart;
} pt_prediction;

typedef struct pt_optimizer_row {
    const char *name, *help;
    int state_buffers;                              /* flat buffers beside θ and g … */
    const char *state_names[PT_MOST_STATE_BUFFERS]; /* … and what PyTorch calls them */
    /* Step t = 0, 1, 2 … `prediction`: what the same pass makes in `dev_out` for the next forward,
     * from what the step leaves; NULL: nothing. */
    pt_status (*step)(pt_backend *b, const pt_optimizer_spec *spec, int64_t t, double lr,
                      double scale, const pt_optimizer_buffers *at, const pt_prediction *prediction,
                      float *dev_out, pt_error *err);
    /* The prediction alone, t steps done; the bits of the one that a step makes. */
    pt_status (*foresee)(pt_backend *b, const pt_optimizer_spec *spec, int64_t t,
                         const pt_optimizer_buffers *at, const pt_prediction *prediction,
                         float *dev_out, pt_error *err);
    /* Where n steps with no new gradients lead, t steps done: what msnag foresees. */
    pt_prediction (*drift)(const pt_optimizer_spec *spec, const pt_lr_spec *lr, int64_t t, int n);
    const char *no_drift; /* where drift is NULL: the reason, and what to write instead */
} pt_optimizer_row;

const pt_optimizer_row *pt_optimizer_find(const char *name); /* or NULL */
const char *const *pt_optimizer_names(void);
/* "momentum 0.9, weight decay 0": what the optimizer goes by, for people. */
void pt_optimizer_describe(const pt_optimizer_spec *spec, char *text, size_t size);

/* ---- predictors -------------------------------------------------------------------------------
 */
typedef struct pt_predictor_row pt_predictor_row;

struct pt_predictor_row {
    const char *name, *help;
    /* Refuses a combination that has no meaning, with the reason and what to write instead.
     * `staleness` is the largest that will be asked for; 0 where it is not known yet. */
    pt_status (*accepts)(const pt_predictor_row *row, const pt_optimizer_spec *optimizer,
                         int staleness, pt_error *err);
    pt_prediction (*predict)(const pt_optimizer_spec *optimizer, const pt_lr_spec *lr, int64_t step,
                             int staleness);
    /* The first step foreseen goes by the gradient that this step's micro-batches have gathered so
     * far, where they have, and the prediction is for the rest. */
    bool gathers;
};

const pt_predictor_row *pt_predictor_find(const char *name); /* or NULL; "none" has a row */
const char *const *pt_predictor_names(void);

#endif
