/* The buffers of a stage's weights, their updates, and ways in and out. Which of their versions a
 * pass reads is weights_versions.c's business. */
#include <stdlib.h>

#include "weights_internal.h"

size_t pt_weights_bytes(const pt_weights_spec *spec)
{
    size_t buffers = 1; /* θ */
    if (spec->training) {
        const pt_optimizer_row *optimizer = pt_optimizer_find(spec->optimizer.name);
        buffers += 1 + (size_t)optimizer->state_buffers;
        buffers += spec->two_versions;
        buffers += pt_weights_gap_buffers(spec) + pt_weights_back_buffers(spec);
        buffers += pt_weights_keep(spec) ? (size_t)spec->versions : pt_weights_predicts(spec);
    }
    return (buffers * spec->flat->param_elements + spec->flat->state_elements) * sizeof(float);
}

static pt_status buffer(pt_weights *w, size_t elements, float **ret_dev, pt_error *err)
{
    void *dev = NULL;
    PT_TRY(w->backend->row->dev_new(w->backend, elements * sizeof(float), &dev, err));
    *ret_dev = dev;
    return PT_OK;
}

pt_status pt_weights_buffer(pt_weights *w, float **ret_dev, pt_error *err)
{
    return buffer(w, w->n, ret_dev, err);
}

static pt_status allocate(pt_weights *w, pt_error *err)
{
    PT_TRY(buffer(w, w->n, &w->theta, err));
    PT_TRY(buffer(w, w->spec.flat->state_elements, &w->state, err));
    if (!w->spec.training)
        return PT_OK;
    PT_TRY(buffer(w, w->n, &w->gradient, err));
    for (int i = 0; i < w->optimizer->state_buffers; i++)
        PT_TRY(buffer(w, w->n, &w->moments[i], err));
    PT_TRY(pt_weights_gap_new(w, err));
    PT_TRY(pt_weights_back_new(w, err));
    if (w->spec.two_versions)
        return buffer(w, w->n, &w->previous, err);
    if (!pt_weights_keep(&w->spec))
        return pt_weights_predicts(&w->spec) ? buffer(w, w->n, &w->predicted, err) : PT_OK;
    w->stash = calloc((size_t)w->spec.versions, sizeof *w->stash);
    if (!w->stash)
        return pt_fail(err, PT_ENOMEM, "no memory for %d weight versions", w->spec.versions);
    for (int i = 0; i < w->spec.versions; i++)
        PT_TRY(buffer(w, w->n, &w->stash[i].dev, err));
    return PT_OK;
}

pt_status pt_weights_new(pt_backend *backend, const pt_weights_spec *spec, pt_weights **ret_weights,
                         pt_error *err)
{
    pt_weights *w = calloc(1, sizeof *w);
    if (!w)
        return pt_fail(err, PT_ENOMEM, "no memory for weights");
    w->backend = backend;
    w->spec = *spec;
    w->n = spec->flat->param_elements;
    w->optimizer = pt_optimizer_find(spec->optimizer.name);
    w->content = w->last_content = 1;
    pt_status status = allocate(w, err);
    if (status != PT_OK) {
        pt_weights_free(w);
        return status;
    }
    *ret_weights = w;
    return PT_OK;
}

void pt_weights_free(pt_weights *w)
{
    if (!w)
        return;
    const pt_backend_row *row = w->backend->row;
    for (int i = 0; w->stash && i < w->spec.versions; i++)
        row->dev_free(w->backend, w->stash[i].dev);
    free(w->stash);
    row->dev_free(w->backend, w->theta);
    row->dev_free(w->backend, w->gradient);
    row->dev_free(w->backend, w->state);
    for (int i = 0; i < PT_MOST_STATE_BUFFERS; i++)
        row->dev_free(w->backend, w->moments[i]);
    row->dev_free(w->backend, w->drift);
    row->dev_free(w->backend, w->back);
    row->dev_free(w->backend, w->own);
    row->dev_free(w->backend, w->mean_squares);
    row->dev_free(w->backend, w->predicted);
    row->dev_free(w->backend, w->previous);
    free(w);
}

pt_weight_set pt_weights_now(const pt_weights *w)
{
    return (pt_weight_set){w->theta, w->content, w->updates, /*stash_slot=*/-1};
}

/* The next forward will most likely be as late as the last one: its weights are foreseen in the
 * pass that changes θ. Another staleness makes its own. */
static pt_status step_piece(pt_weights *w, int which, double scale, int staleness, pt_error *err)
{
    weights_piece p = pt_weights_piece(w, which);
    if (p.at.n == 0)
        return PT_OK;
    pt_prediction c = pt_weights_prediction(w, &p, w->updates + 1, staleness);
    bool foresees = staleness > 0;
    return w->optimizer->step(w->backend, &p.optimizer, w->updates, pt_weights_lr(w), scale, &p.at,
                              foresees ? &c : NULL, foresees ? w->predicted + p.begin : NULL, err);
}

pt_status pt_weights_update(pt_weights *w, double scale, pt_error *err)
{
    int staleness = w->predicted ? w->predicted_staleness : 0;
    if (w->previous) {
        PT_TRY(w->backend->row->copy(w->backend, w->previous, w->theta, w->n * sizeof(float), err));
        w->previous_content = ++w->last_content;
    }
    PT_TRY(pt_weights_back_before(w, err));
    for (int i = 0; i < WEIGHT_PIECES; i++)
        PT_TRY(step_piece(w, i, scale, staleness, err));
    PT_TRY(pt_weights_gap_update(w, err));
    w->updates++;
    w->gathered = 0;
    w->content = ++w->last_content;
    if (staleness > 0)
        pt_weights_has_predicted(w, staleness);
    return pt_weights_back_after(w, err);
}

pt_status pt_weights_restart(pt_weights *w, pt_error *err)
{
    const pt_backend_row *row = w->backend->row;
    size_t bytes = w->n * sizeof(float);
    pt_status status = PT_OK;
    w->updates = 0;
    w->gathered = 0;
    w->predicted_staleness = 0;
    w->top_rate = 0;
    w->content = ++w->last_content;
    /* v = 0·θ + 0·θ would keep a NaN: copy zeros instead. */
    void *zeros = NULL;
    float *const kept[] = {w->moments[0], w->moments[1], w->mean_squares, w->drift};
    PT_TRY(row->host_new(w->backend, bytes, &zeros, err));
    for (size_t i = 0; status == PT_OK && i < sizeof kept / sizeof *kept; i++)
        if (kept[i])
            status = row->upload(w->backend, kept[i], zeros, bytes, err);
    row->host_free(w->backend, zeros);
    return status;
}

int64_t pt_weights_updates(const pt_weights *w)
{
    return w->updates;
}

double pt_weights_lr(const pt_weights *w)
{
    return pt_lr_at(&w->spec.lr, w->updates);
}

float *pt_weights_gradient(pt_weights *w)
{
    return w->gradient;
}

float *pt_weights_state(pt_weights *w)
{
    return w->state;
}

static pt_status get(pt_weights *w, const float *dev, const pt_flat_tensor *tensor, float *dst,
                     pt_error *err)
{
    return w->backend->row->download(w->backend, dst, dev + tensor->offset,
                                     (size_t)tensor->shape.elements * sizeof(float), err);
}

static pt_status set(pt_weights *w, float *dev, const pt_flat_tensor *tensor, const float *src,
                     pt_error *err)
{
    return w->backend->row->upload(w->backend, dev + tensor->offset, src,
                                   (size_t)tensor->shape.elements * sizeof(float), err);
}

pt_status pt_weights_get_param(pt_weights *w, int i, float *dst, pt_error *err)
{
    return get(w, w->theta, &w->spec.flat->params[i], dst, err);
}

pt_status pt_weights_set_param(pt_weights *w, int i, const float *src, pt_error *err)
{
    w->content = ++w->last_content;
    return set(w, w->theta, &w->spec.flat->params[i], src, err);
}

pt_status pt_weights_get_state(pt_weights *w, int i, float *dst, pt_error *err)
{
    return get(w, w->state, &w->spec.flat->state[i], dst, err);
}

pt_status pt_weights_set_state(pt_weights *w, int i, const float *src, pt_error *err)
{
    return set(w, w->state, &w->spec.flat->state[i], src, err);
}
