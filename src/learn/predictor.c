/* Weight prediction: which weights will this micro-batch's gradient meet when it comes back?
 *
 *   now                                        n updates later
 *    θ ────── θ' ────── θ'' ─── … ──────────────► θ_n     the gradient is applied here, so the
 *    └── forward of this micro-batch              ▲       forward had better use θ_n;
 *                                                 └ θ̂ = a·θ + b·v   guesses it from the momentum
 *
 * Multi-step NAG (msnag): with no new gradients the momentum alone moves the weights by
 *    v̂ ← γ·v̂ + λ·θ̂ ;  θ̂ ← θ̂ - η_i·v̂            for the n foreseen steps i,
 * which is linear in (θ, v): the loop runs on the two coefficient pairs instead of the weights, and
 * the backend makes one pass. Without decay and with a constant η this is
 *    θ̂ = θ - η·(γ - γ^(n+1))/(1 - γ)·v.
 * For n = 1 it is the look-ahead point of Nesterov's method; the multi-step form is that of
 * "Pipelined Backpropagation at Scale" (Kosson et al., MLSys 2021, linear weight prediction) and
 * FTPipe (Eliad et al., ATC 2021, section on weight prediction). */
#include "pipetrain/learn.h"

#include <string.h>

static pt_status any_optimizer(const pt_optimizer_spec *optimizer, pt_error *err)
{
    (void)optimizer;
    (void)err;
    return PT_OK;
}

static pt_status momentum_only(const pt_optimizer_spec *optimizer, pt_error *err)
{
    if (strcmp(optimizer->name, "sgd") == 0)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "--predict msnag cannot be used with --optimizer %s: it foresees the drift of "
                   "plain momentum, and %s drifts differently (2.195 against 2.439 ηv after three "
                   "steps at γ = 0.9); write --optimizer sgd, or --predict none",
                   optimizer->name, optimizer->name);
}

static pt_prediction predict_nothing(const pt_optimizer_spec *optimizer, const pt_lr_spec *lr,
                                     int64_t step, int staleness)
{
    (void)optimizer;
    (void)lr;
    (void)step;
    (void)staleness;
    return (pt_prediction){1, 0};
}

static pt_prediction predict_msnag(const pt_optimizer_spec *optimizer, const pt_lr_spec *lr,
                                   int64_t step, int staleness)
{
    /* θ̂ = theta[0]·θ + theta[1]·v and v̂ = velocity[0]·θ + velocity[1]·v, in double */
    double theta[2] = {1, 0}, velocity[2] = {0, 1};
    for (int i = 0; i < staleness; i++) {
        double eta = pt_lr_at(lr, step + i);
        for (int c = 0; c < 2; c++) {
            velocity[c] = optimizer->momentum * velocity[c] + optimizer->decay * theta[c];
            theta[c] -= eta * velocity[c];
        }
    }
    return (pt_prediction){(float)theta[0], (float)theta[1]};
}

/* One line a row; the table and the list of names are both made of it. */
#define ROWS(ROW)                                                                                  \
    ROW("none", "the newest weights this stage has", any_optimizer, predict_nothing)               \
    ROW("msnag",                                                                                   \
        "multi-step NAG: as many momentum steps ahead as the schedule says it will be late",       \
        momentum_only, predict_msnag)

#define AS_ROW(name, help, accepts, predict)  {name, help, accepts, predict},
#define AS_NAME(name, help, accepts, predict) name,

static const pt_predictor_row rows[] = {ROWS(AS_ROW)};
static const char *const names[] = {ROWS(AS_NAME) NULL};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

const pt_predictor_row *pt_predictor_find(const char *name)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

const char *const *pt_predictor_names(void)
{
    return names;
}
