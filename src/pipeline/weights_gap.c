/* Gap-aware (Barkai, Hakimi, Schuster, "Gap-aware mitigation of gradient staleness", ICLR 2020).
 *
 * The gap of a weight is how far it has gone since the forward of the gradient that comes in now,
 * measured in steps: C is the size of a typical one at the highest learning rate so far,
 *
 *     g ← g / (1 + |θ_forward - θ|/C),   C = η_max·(√(a/(1 - Γ^k)) + 1e-8),   a ← Γ·a + (1 - Γ)·v²
 *
 * with a a running mean after each of the k updates, as in FTPipe's form for momentum SGD (Eliad et
 * al., ATC 2021). That divides the weight decay too. Here it is whole: λ·θ is added at the update,
 * of weights that are not late. And k counts the updates alone, not the velocity 0 before the
 * first.
 *
 * Each micro-batch has its own forward and so its own gap: where a step has several, a gradient is
 * made in a buffer of its own, and what the division leaves of it is added to the step's. */
#include <math.h>

#include "weights_internal.h"

static const double mean_keeps = 0.999, least_step = 1e-8; /* Γ, and what is added to the root */

size_t pt_weights_gap_buffers(const pt_weights_spec *spec)
{
    return !spec->gap_aware ? 0 : spec->per_step > 1 ? 2 : 1;
}

pt_status pt_weights_gap_new(pt_weights *w, pt_error *err)
{
    if (!w->spec.gap_aware)
        return PT_OK;
    PT_TRY(pt_weights_buffer(w, &w->mean_squares, err));
    return w->spec.per_step > 1 ? pt_weights_buffer(w, &w->own, err) : PT_OK;
}

static double top_rate(const pt_weights *w)
{
    return fmax(w->top_rate, pt_weights_lr(w));
}

pt_status pt_weights_gap_update(pt_weights *w, pt_error *err)
{
    if (!w->spec.gap_aware)
        return PT_OK;
    w->top_rate = top_rate(w);
    return w->backend->row->mean_squares(w->backend, w->n, (float)mean_keeps,
                                         (float)(1 - mean_keeps), w->moments[0], w->mean_squares,
                                         err);
}

/* A rate of 0 has moved nothing: there is neither a gap nor a measure for it. */
static bool has_gap(const pt_weights *w, const pt_weight_set *forward)
{
    return w->spec.gap_aware && forward->stash_slot >= 0 && w->updates > 0 && top_rate(w) > 0;
}

pt_gradient_place pt_weights_gradient_place(pt_weights *w, const pt_weight_set *forward,
                                            bool accumulate)
{
    if (w->own && has_gap(w, forward))
        return (pt_gradient_place){w->own, /*accumulate=*/false};
    return (pt_gradient_place){w->gradient, accumulate};
}

pt_status pt_weights_take_gradient(pt_weights *w, const pt_weight_set *forward, bool accumulate,
                                   pt_error *err)
{
    w->gathered = accumulate ? w->gathered + 1 : 1;
    if (!has_gap(w, forward))
        return PT_OK;
    pt_gap rule = {
        .top = (float)top_rate(w),
        .unbias = (float)(1 / (1 - pow(mean_keeps, (double)w->updates))),
        .least = (float)least_step,
        .accumulate = accumulate,
    };
    return w->backend->row->gap(w->backend, w->n, &rule, w->stash[forward->stash_slot].dev,
                                w->theta, w->mean_squares, w->own ? w->own : w->gradient,
                                w->gradient, err);
}
