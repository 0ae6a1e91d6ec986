/* Adam, AdamW and NAdam, and where the first two go without new gradients.
 *
 * With no gradients m shrinks by β1 a step, and its correction 1-β1^(t+i) grows. v is taken as it
 * is, with the correction of the last step done: the moves of the next few steps hardly change it,
 * and were it to shrink as zero gradients would make it, the foreseen steps would grow. So step i
 * of n moves every weight by the same share of u = m/(√v/√(1-β2^t) + ε):
 *
 *     θ̂ ← θ̂·(1 - η_i·λ) - η_i·β1^i/(1-β1^(t+i)) · u      (AdamW; λ = 0: Adam without decay)
 *
 * which is linear in θ and u: the loop runs on two coefficients. Adam's decay goes through m and is
 * divided by another √v in every weight: there the backend runs the loop itself.
 *
 * This is multi-step NAG as FTPipe applies it to Adam (Eliad et al., ATC 2021), but for the
 * correction of v: FTPipe's is 1-β2^(t+i) although its v does not change, which shrinks what is
 * below the line at first and makes a foreseen step up to √(1 + i/t) times too long. That form is
 * there to compare with (msnag-ftpipe): its steps differ in their roots, and so go in a loop too.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "rows.h"

static bool is_nadam(const pt_optimizer_spec *spec)
{
    return strcmp(spec->name, "nadam-async") == 0;
}

static bool is_decoupled(const pt_optimizer_spec *spec)
{
    return strcmp(spec->name, "adamw") == 0 || is_nadam(spec);
}

bool pt_adam_is_coupled(const pt_optimizer_spec *spec)
{
    return strcmp(spec->name, "adam") == 0 && spec->decay > 0;
}

/* The rule of the t-th step, t = 1, 2 …; t = 0 for a foresight before the first: m and v are 0, and
 * any finite root does. */
static pt_adam rule_of(const pt_optimizer_spec *spec, int64_t t, double lr, double scale)
{
    double decoupled = is_decoupled(spec) ? spec->decay : 0;
    double left1 = t > 0 ? 1 - pow(spec->beta1, (double)t) : 1;
    double left2 = t > 0 ? 1 - pow(spec->beta2, (double)t) : 1;
    return (pt_adam){
        .rate = (float)(lr / left1),
        .root = (float)(1 / sqrt(left2)),
        .keep = (float)(1 - lr * decoupled),
        .beta1 = (float)spec->beta1,
        .beta2 = (float)spec->beta2,
        .rest1 = (float)(1 - spec->beta1),
        .rest2 = (float)(1 - spec->beta2),
        .eps = (float)spec->eps,
        .decay = (float)(spec->decay - decoupled),
        .scale = (float)scale,
    };
}

static pt_status pass(pt_backend *b, const pt_adam *rule, const pt_optimizer_buffers *at,
                      const float *gradient, const pt_prediction *prediction, float *dev_out,
                      pt_error *err)
{
    pt_adam_foresight foresight;
    if (prediction)
        foresight = (pt_adam_foresight){prediction->a, prediction->b, prediction->rates, dev_out,
                                        prediction->apart};
    return b->row->adam(b, at->n, rule, at->theta, at->state[0], at->state[1], gradient,
                        prediction ? &foresight : NULL, err);
}

pt_status pt_adam_step(pt_backend *b, const pt_optimizer_spec *spec, int64_t t, double lr,
                       double scale, const pt_optimizer_buffers *at,
                       const pt_prediction *prediction, float *dev_out, pt_error *err)
{
    pt_adam rule = rule_of(spec, t + 1, lr, scale);
    return pass(b, &rule, at, at->gradient, prediction, dev_out, err);
}

/* Dozat's momentum of step t = 1, 2 …, warming up from β1/2 to β1; the constants are PyTorch's. */
static double nadam_momentum(const pt_optimizer_spec *spec, double t)
{
    return spec->beta1 * (1 - 0.5 * pow(0.96, 0.004 * t));
}

/* μ_1 · … · μ_t, which soon makes no difference to 1. */
static double nadam_product(const pt_optimizer_spec *spec, int64_t t)
{
    const double nothing = 1e-18, fade = pow(0.96, 0.004);
    double product = 1, left = 1;
    for (int64_t i = 1; i <= t && product > nothing; i++) {
        left *= fade;
        product *= spec->beta1 * (1 - 0.5 * left);
    }
    return product;
}

/* T. Dozat, "Incorporating Nesterov momentum into Adam", 2016, as PyTorch's NAdam has it, with
 * AdamW's decay. That it suits late gradients (β1 = 0.99, stashed weights) is from Ajanthan et al.,
 * "Nesterov method for asynchronous pipeline parallel optimization", ICML 2025. */
pt_status pt_nadam_step(pt_backend *b, const pt_optimizer_spec *spec, int64_t t, double lr,
                        double scale, const pt_optimizer_buffers *at,
                        const pt_prediction *prediction, float *dev_out, pt_error *err)
{
    pt_adam rule = rule_of(spec, t + 1, lr, scale);
    double mu = nadam_momentum(spec, (double)t + 1), next = nadam_momentum(spec, (double)t + 2);
    double product = nadam_product(spec, t + 1);
    rule.rate = (float)(lr * next / (1 - product * next));
    rule.now = (float)(lr * (1 - mu) / (1 - product));
    return pass(b, &rule, at, at->gradient, prediction, dev_out, err);
}

pt_status pt_adam_foresee(pt_backend *b, const pt_optimizer_spec *spec, int64_t t,
                          const pt_optimizer_buffers *at, const pt_prediction *prediction,
                          float *dev_out, pt_error *err)
{
    pt_adam rule = rule_of(spec, t, /*lr=*/0, /*scale=*/1);
    return pass(b, &rule, at, /*gradient=*/NULL, prediction, dev_out, err);
}

/* Before the first step v is 0, and a decay divided by √v + ε would lead anywhere: nothing is
 * foreseen then. `moves_on`: whether the correction of v goes on although v stays. */
static pt_prediction in_a_loop(const pt_optimizer_spec *spec, const pt_lr_spec *lr, int64_t t,
                               int n, bool moves_on)
{
    pt_prediction made = {.a = 1, .rates.n = t > 0 || !pt_adam_is_coupled(spec) ? n : 0};
    assert(n <= PT_MOST_RATES); /* pt_predictor_row.accepts */
    for (int i = 0; i < made.rates.n; i++) {
        pt_adam rule = rule_of(spec, t + i + 1, pt_lr_at(lr, t + i), /*scale=*/1);
        made.rates.at[i] = rule.rate;
        made.rates.root[i] = moves_on ? rule.root : rule_of(spec, t, 0, 1).root;
        made.rates.keep[i] = rule.keep;
    }
    return made;
}

pt_prediction pt_adam_drift_ftpipe(const pt_optimizer_spec *spec, const pt_lr_spec *lr, int64_t t,
                                   int n)
{
    return in_a_loop(spec, lr, t, n, /*moves_on=*/true);
}

pt_prediction pt_adam_drift(const pt_optimizer_spec *spec, const pt_lr_spec *lr, int64_t t, int n)
{
    double a = 1, b = 0;
    if (pt_adam_is_coupled(spec))
        return in_a_loop(spec, lr, t, n, /*moves_on=*/false);
    for (int i = 1; i <= n; i++) {
        double eta = pt_lr_at(lr, t + i - 1), keep = 1 - eta * spec->decay;
        a = a * keep;
        b = b * keep - eta * pow(spec->beta1, i) / (1 - pow(spec->beta1, (double)t + i));
    }
    return (pt_prediction){.a = (float)a, .b = (float)b};
}
