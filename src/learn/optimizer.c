/* Optimizers as rows. Each step is one fused pass of the backend over the stage's flat buffers. */
#include "pipetrain/learn.h"

#include <stdio.h>
#include <string.h>

#include "rows.h"

static pt_status sgd_like(pt_backend *b, const pt_optimizer_spec *spec, bool nesterov, double lr,
                          double scale, const pt_optimizer_buffers *at,
                          const pt_prediction *prediction, float *dev_out, pt_error *err)
{
    pt_sgd rule = {
        .lr = (float)lr,
        .momentum = (float)spec->momentum,
        .decay = (float)spec->decay,
        .scale = (float)scale,
        .nesterov = nesterov,
    };
    pt_foresight foresight = {.dev_out = dev_out};
    if (prediction) {
        foresight.a = prediction->a;
        foresight.b = prediction->b;
        foresight.apart = prediction->apart;
    }
    return b->row->sgd(b, at->n, &rule, at->theta, at->state[0], at->gradient,
                       prediction ? &foresight : NULL, err);
}

static pt_status sgd_step(pt_backend *b, const pt_optimizer_spec *spec, int64_t t, double lr,
                          double scale, const pt_optimizer_buffers *at,
                          const pt_prediction *prediction, float *dev_out, pt_error *err)
{
    (void)t;
    return sgd_like(b, spec, /*nesterov=*/false, lr, scale, at, prediction, dev_out, err);
}

static pt_status nesterov_step(pt_backend *b, const pt_optimizer_spec *spec, int64_t t, double lr,
                               double scale, const pt_optimizer_buffers *at,
                               const pt_prediction *prediction, float *dev_out, pt_error *err)
{
    (void)t;
    return sgd_like(b, spec, /*nesterov=*/true, lr, scale, at, prediction, dev_out, err);
}

static pt_status sgd_foresee(pt_backend *b, const pt_optimizer_spec *spec, int64_t t,
                             const pt_optimizer_buffers *at, const pt_prediction *prediction,
                             float *dev_out, pt_error *err)
{
    (void)spec, (void)t;
    return b->row->axpby(b, at->n, prediction->a, at->theta, prediction->b, at->state[0], dev_out,
                         err);
}

/* v̂ ← γ·v̂ + λ·θ̂;  θ̂ ← θ̂ - η_i·v̂, on the coefficients of θ and v. */
static pt_prediction sgd_drift(const pt_optimizer_spec *spec, const pt_lr_spec *lr, int64_t t,
                               int n)
{
    /* θ̂ = theta[0]·θ + theta[1]·v and v̂ = velocity[0]·θ + velocity[1]·v, in double */
    double theta[2] = {1, 0}, velocity[2] = {0, 1};
    for (int i = 0; i < n; i++) {
        double eta = pt_lr_at(lr, t + i);
        for (int c = 0; c < 2; c++) {
            velocity[c] = spec->momentum * velocity[c] + spec->decay * theta[c];
            theta[c] -= eta * velocity[c];
        }
    }
    return (pt_prediction){.a = (float)theta[0], .b = (float)theta[1]};
}

#define NESTEROV_DRIFT                                                                             \
    "it foresees the drift of plain momentum, and nesterov drifts differently (2.195 against "     \
    "2.439 ηv after three steps at γ = 0.9); write --optimizer sgd, or --predict none"
#define NADAM_DRIFT                                                                                \
    "nadam-async looks ahead in its own step; write --predict none, or --optimizer adamw"

#define VELOCITY                                                                                   \
    {                                                                                              \
        "momentum_buffer"                                                                          \
    }
#define MOMENTS                                                                                    \
    {                                                                                              \
        "exp_avg", "exp_avg_sq"                                                                    \
    }

/* One line a row; the table and the list of names are both made of it. */
#define ROWS(ROW)                                                                                  \
    ROW("sgd", "momentum: v = γv + g + λθ, θ = θ - ηv", 1, VELOCITY, sgd_step, sgd_foresee,        \
        sgd_drift, NULL)                                                                           \
    ROW("nesterov", "Nesterov momentum: θ = θ - η(g + λθ + γv)", 1, VELOCITY, nesterov_step,       \
        sgd_foresee, NULL, NESTEROV_DRIFT)                                                         \
    ROW("adam", "Adam; the decay is part of the gradient", 2, MOMENTS, pt_adam_step,               \
        pt_adam_foresee, pt_adam_drift, NULL)                                                      \
    ROW("adamw", "Adam; the decay is taken off the weights", 2, MOMENTS, pt_adam_step,             \
        pt_adam_foresee, pt_adam_drift, NULL)                                                      \
    ROW("nadam-async", "Adam with Nesterov's look-ahead in the step", 2, MOMENTS, pt_nadam_step,   \
        pt_adam_foresee, NULL, NADAM_DRIFT)

#define AS_ROW(name, help, state_buffers, state_names, step, foresee, drift, no_drift)             \
    {name, help, state_buffers, state_names, step, foresee, drift, no_drift},
#define AS_NAME(name, help, state_buffers, state_names, step, foresee, drift, no_drift) name,

static const pt_optimizer_row rows[] = {ROWS(AS_ROW)};
static const char *const names[] = {ROWS(AS_NAME) NULL};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

const pt_optimizer_row *pt_optimizer_find(const char *name)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

const char *const *pt_optimizer_names(void)
{
    return names;
}

void pt_optimizer_describe(const pt_optimizer_spec *spec, char *text, size_t size)
{
    if (pt_optimizer_find(spec->name)->state_buffers == 1)
        snprintf(text, size, "momentum %g, weight decay %g", spec->momentum, spec->decay);
    else
        snprintf(text, size, "betas %g and %g, eps %g, weight decay %g", spec->beta1, spec->beta2,
                 spec->eps, spec->decay);
}
