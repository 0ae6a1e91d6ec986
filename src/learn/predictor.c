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
 * FTPipe (Eliad et al., ATC 2021, section on weight prediction). Each optimizer's row knows where
 * it drifts to.
 *
 * With several micro-batches a step (aggmsnag) a forward may stand in the middle of a step, some of
 * whose gradient is there already: the first foreseen step goes by it. That is the step as it would
 * be now, and the others from there, again as in FTPipe; but its Adam leaves the squares of that
 * gradient out of v, and so divides by next to nothing where gradients were 0 before.
 *
 * SpecTrain (Chen et al., "Efficient and robust parallel DNN training through model parallelism on
 * multi-GPU platform", 2018): the last move again, n times: θ̂ = θ - n·η·v, each with the rate of
 * the step that it foresees. (Its v is a mean of gradients, ours their sum: with η it is the last
 * move in both.) The paper predicts for the backward too; here --stash makes the backward use the
 * forward's weights, or else it uses the newest. */
#include "pipetrain/learn.h"

#include <string.h>

#include "rows.h"

static pt_status any_optimizer(const pt_predictor_row *row, const pt_optimizer_spec *optimizer,
                               int staleness, pt_error *err)
{
    (void)row;
    (void)optimizer;
    (void)staleness;
    (void)err;
    return PT_OK;
}

static pt_status known_drift(const pt_predictor_row *row, const pt_optimizer_spec *optimizer,
                             int staleness, pt_error *err)
{
    const pt_optimizer_row *moves = pt_optimizer_find(optimizer->name);
    if (!moves->drift)
        return pt_fail(err, PT_EINPUT, "--predict %s cannot be used with --optimizer %s: %s",
                       row->name, moves->name, moves->no_drift);
    if (pt_adam_is_coupled(optimizer) && staleness > PT_MOST_RATES)
        return pt_fail(err, PT_EINPUT,
                       "--predict %s foresees at most %d updates with the weight decay of "
                       "--optimizer adam, and a stage here is %d late; write --optimizer adamw, "
                       "--weight-decay 0 or a smaller --in-flight",
                       row->name, PT_MOST_RATES, staleness);
    return PT_OK;
}

static pt_status ftpipe_differs(const pt_predictor_row *row, const pt_optimizer_spec *optimizer,
                                int staleness, pt_error *err)
{
    if (pt_optimizer_find(optimizer->name)->drift != pt_adam_drift)
        return pt_fail(err, PT_EINPUT,
                       "--predict %s is FTPipe's form of Adam's msnag, and cannot be used with "
                       "--optimizer %s; write --optimizer adam or adamw, or --predict %s",
                       row->name, optimizer->name,
                       pt_optimizer_find(optimizer->name)->drift ? "msnag" : "none");
    if (staleness > PT_MOST_RATES)
        return pt_fail(err, PT_EINPUT,
                       "--predict %s foresees at most %d updates, and a stage here is %d late; "
                       "write --predict msnag or a smaller --in-flight",
                       row->name, PT_MOST_RATES, staleness);
    return PT_OK;
}

static pt_status momentum_only(const pt_predictor_row *row, const pt_optimizer_spec *optimizer,
                               int staleness, pt_error *err)
{
    (void)row;
    (void)staleness;
    if (strcmp(optimizer->name, "sgd") == 0)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "--predict spectrain cannot be used with --optimizer %s: it repeats the last "
                   "move of plain momentum; write --optimizer sgd, or --predict %s",
                   optimizer->name, pt_optimizer_find(optimizer->name)->drift ? "msnag" : "none");
}

static pt_prediction predict_nothing(const pt_optimizer_spec *optimizer, const pt_lr_spec *lr,
                                     int64_t step, int staleness)
{
    (void)optimizer;
    (void)lr;
    (void)step;
    (void)staleness;
    return (pt_prediction){.a = 1};
}

static pt_prediction predict_msnag(const pt_optimizer_spec *optimizer, const pt_lr_spec *lr,
                                   int64_t step, int staleness)
{
    return pt_optimizer_find(optimizer->name)->drift(optimizer, lr, step, staleness);
}

static pt_prediction predict_ftpipe(const pt_optimizer_spec *optimizer, const pt_lr_spec *lr,
                                    int64_t step, int staleness)
{
    return pt_adam_drift_ftpipe(optimizer, lr, step, staleness);
}

static pt_prediction predict_spectrain(const pt_optimizer_spec *optimizer, const pt_lr_spec *lr,
                                       int64_t step, int staleness)
{
    (void)optimizer;
    double way = 0;
    for (int i = 0; i < staleness; i++)
        way += pt_lr_at(lr, step + i);
    return (pt_prediction){.a = 1, .b = (float)-way};
}

/* One line a row; the table and the list of names are both made of it. */
#define ROWS(ROW)                                                                                  \
    ROW("none", "the newest weights this stage has", any_optimizer, predict_nothing, false)        \
    ROW("msnag",                                                                                   \
        "multi-step NAG: as many momentum steps ahead as the schedule says it will be late",       \
        known_drift, predict_msnag, false)                                                         \
    ROW("aggmsnag", "the same, the first of them by the gradient gathered so far", known_drift,    \
        predict_msnag, true)                                                                       \
    ROW("msnag-ftpipe", "msnag of Adam with FTPipe's correction of v", ftpipe_differs,             \
        predict_ftpipe, false)                                                                     \
    ROW("spectrain", "the last move again, as many times", momentum_only, predict_spectrain, false)

#define AS_ROW(name, help, accepts, predict, gathers)  {name, help, accepts, predict, gathers},
#define AS_NAME(name, help, accepts, predict, gathers) name,

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
