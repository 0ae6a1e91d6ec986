/* PipeMare's discrepancy correction (Yang et al., "PipeMare: asynchronous pipeline parallel DNN
 * training", MLSys 2021, T2): without memory for old weights, a backward guesses them.
 *
 *     δ ← γ·δ + (1 - γ)·(w_{t+1} - w_t),   γ = D^(1/τ);   the backward reads w - τ·δ
 *
 * τ is by how many updates a forward is late, here on average over the schedule. So after τ updates
 * D is what is left of a move; e^-2 is the value that is usually named.
 *
 * The buffer of w - τ·δ is free from the last backward before an update until that update is done:
 * it holds w_t meanwhile. */
#include <math.h>

#include "weights_internal.h"

static bool corrects(const pt_weights_spec *spec)
{
    return spec->correction.delay > 0 && spec->correction.decay > 0;
}

size_t pt_weights_back_buffers(const pt_weights_spec *spec)
{
    return corrects(spec) ? 2 : 0;
}

pt_status pt_weights_back_new(pt_weights *w, pt_error *err)
{
    if (!corrects(&w->spec))
        return PT_OK;
    PT_TRY(pt_weights_buffer(w, &w->drift, err));
    return pt_weights_buffer(w, &w->back, err);
}

pt_status pt_weights_back_before(pt_weights *w, pt_error *err)
{
    if (!w->back)
        return PT_OK;
    return w->backend->row->copy(w->backend, w->back, w->theta, w->n * sizeof(float), err);
}

pt_status pt_weights_back_after(pt_weights *w, pt_error *err)
{
    if (!w->back)
        return PT_OK;
    double delay = w->spec.correction.delay, keep = pow(w->spec.correction.decay, 1 / delay);
    pt_look_back rule = {.keep = (float)keep, .rest = (float)(1 - keep), .delay = (float)delay};
    w->back_from = w->content;
    w->back_content = ++w->last_content;
    return w->backend->row->look_back(w->backend, w->n, &rule, w->theta, w->drift, w->back, err);
}

pt_weight_set pt_weights_back(const pt_weights *w)
{
    if (!w->back || w->back_from != w->content || w->updates < w->spec.lr.first_late)
        return pt_weights_now(w);
    return (pt_weight_set){w->back, w->back_content, w->updates, /*stash_slot=*/-1};
}
