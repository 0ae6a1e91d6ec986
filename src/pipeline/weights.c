/* Weight versions; see the header for the picture. */
#include "pipetrain/weights.h"

#include <stdlib.h>
#include <string.h>

typedef struct stash_slot {
    float *dev;
    uint64_t content;
    uint64_t made_from; /* content of θ then */
    int64_t version;
    int staleness; /* how far ahead it was predicted */
    int holders;   /* micro-batches between their forward and their backward */
} stash_slot;

struct pt_weights {
    pt_backend *backend;
    pt_weights_spec spec;
    const pt_optimizer_row *optimizer;
    size_t n; /* elements of a parameter buffer */
    float *theta, *gradient, *state;
    float *moments[PT_MOST_STATE_BUFFERS]; /* of the optimizer */
    float *predicted;
    uint64_t content;           /* of θ */
    uint64_t last_content;      /* the newest number given to anything */
    uint64_t predicted_content; /* of `predicted` … */
    uint64_t predicted_from;    /* … which was made from this content of θ … */
    int predicted_staleness;    /* … for this staleness; 0: never made */
    float *previous;            /* two versions: θ before the last update … */
    uint64_t previous_content;
    int64_t updates;
    stash_slot *stash;
};

static bool predicts(const pt_weights_spec *spec)
{
    return strcmp(spec->predictor->name, "none") != 0;
}

size_t pt_weights_bytes(const pt_weights_spec *spec)
{
    size_t buffers = 1; /* θ */
    if (spec->training) {
        const pt_optimizer_row *optimizer = pt_optimizer_find(spec->optimizer.name);
        buffers += 1 + (size_t)optimizer->state_buffers;
        buffers += spec->two_versions;
        buffers += spec->stash ? (size_t)spec->versions : predicts(spec);
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

static pt_status allocate(pt_weights *w, pt_error *err)
{
    PT_TRY(buffer(w, w->n, &w->theta, err));
    PT_TRY(buffer(w, w->spec.flat->state_elements, &w->state, err));
    if (!w->spec.training)
        return PT_OK;
    PT_TRY(buffer(w, w->n, &w->gradient, err));
    for (int i = 0; i < w->optimizer->state_buffers; i++)
        PT_TRY(buffer(w, w->n, &w->moments[i], err));
    if (w->spec.two_versions)
        return buffer(w, w->n, &w->previous, err);
    if (!w->spec.stash)
        return predicts(&w->spec) ? buffer(w, w->n, &w->predicted, err) : PT_OK;
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
    row->dev_free(w->backend, w->predicted);
    row->dev_free(w->backend, w->previous);
    free(w);
}

/* A piece of the buffers whose weights have the same decay. */
typedef struct piece {
    pt_optimizer_spec optimizer;
    pt_optimizer_buffers at;
    size_t begin;
} piece;

enum { PIECES = 2 }; /* with decay, and without */

/* May be empty. */
static piece piece_of(const pt_weights *w, int which)
{
    size_t decayed = w->spec.optimizer.decay > 0 ? w->spec.flat->decayed_elements : w->n;
    size_t begin = which ? decayed : 0;
    piece p = {.optimizer = w->spec.optimizer, .begin = begin};
    if (which)
        p.optimizer.decay = 0;
    p.at = (pt_optimizer_buffers){
        .n = which ? w->n - decayed : decayed,
        .theta = w->theta + begin,
        .gradient = w->gradient + begin,
    };
    for (int i = 0; i < w->optimizer->state_buffers; i++)
        p.at.state[i] = w->moments[i] + begin;
    return p;
}

static pt_prediction prediction(const pt_weights *w, const piece *p, int64_t step, int staleness)
{
    return w->spec.predictor->predict(&p->optimizer, &w->spec.lr, step, staleness);
}

static pt_status predict_into(pt_weights *w, int staleness, float *dev, pt_error *err)
{
    for (int i = 0; i < PIECES; i++) {
        piece p = piece_of(w, i);
        pt_prediction c = prediction(w, &p, w->updates, staleness);
        if (p.at.n > 0)
            PT_TRY(w->optimizer->foresee(w->backend, &p.optimizer, w->updates, &p.at, &c,
                                         dev + p.begin, err));
    }
    return PT_OK;
}

/* `predicted` was just made, or will be when the compute lane gets there, from θ as it is now. */
static void has_predicted(pt_weights *w, int staleness)
{
    w->predicted_from = w->content;
    w->predicted_staleness = staleness;
    w->predicted_content = ++w->last_content;
}

static pt_status predicted_set(pt_weights *w, int staleness, pt_weight_set *ret_set, pt_error *err)
{
    if (w->predicted_from != w->content || w->predicted_staleness != staleness) {
        PT_TRY(predict_into(w, staleness, w->predicted, err));
        has_predicted(w, staleness);
    }
    *ret_set = (pt_weight_set){w->predicted, w->predicted_content, w->updates, /*stash_slot=*/-1};
    return PT_OK;
}

static bool holds(const pt_weights *w, const stash_slot *slot, int staleness)
{
    return slot->holders > 0 && slot->made_from == w->content &&
           (!predicts(&w->spec) || slot->staleness == staleness);
}

/* A slot that holds these weights already, or a free one that is filled with them. */
static pt_status stashed_set(pt_weights *w, int staleness, pt_weight_set *ret_set, pt_error *err)
{
    int free_slot = -1;
    for (int i = 0; i < w->spec.versions; i++) {
        stash_slot *slot = &w->stash[i];
        if (slot->holders == 0)
            free_slot = i;
        if (!holds(w, slot, staleness))
            continue;
        slot->holders++;
        *ret_set = (pt_weight_set){slot->dev, slot->content, slot->version, i};
        return PT_OK;
    }
    if (free_slot < 0)
        return pt_fail(err, PT_EINTERNAL, "no free weight version of %d", w->spec.versions);
    stash_slot *slot = &w->stash[free_slot];
    if (predicts(&w->spec))
        PT_TRY(predict_into(w, staleness, slot->dev, err));
    else
        PT_TRY(w->backend->row->copy(w->backend, slot->dev, w->theta, w->n * sizeof(float), err));
    slot->content = ++w->last_content;
    slot->made_from = w->content;
    slot->version = w->updates;
    slot->staleness = staleness;
    slot->holders = 1;
    *ret_set = (pt_weight_set){slot->dev, slot->content, slot->version, free_slot};
    return PT_OK;
}

/* What step t reads on the way there, `updates` steps done. */
static pt_weight_set version_before(const pt_weights *w, int64_t t)
{
    if (t == 0 || t > w->updates)
        return pt_weights_now(w);
    return (pt_weight_set){w->previous, w->previous_content, t - 1, /*stash_slot=*/-1};
}

pt_status pt_weights_for_forward(pt_weights *w, int staleness, pt_weight_set *ret_set,
                                 pt_error *err)
{
    if (w->previous && staleness > 1)
        return pt_fail(err, PT_EINTERNAL, "two weight versions, and a forward %d updates late",
                       staleness);
    if (w->previous) {
        *ret_set = version_before(w, w->updates + staleness);
        return PT_OK;
    }
    if (staleness > 0 && w->spec.stash)
        return stashed_set(w, staleness, ret_set, err);
    if (staleness > 0 && w->predicted)
        return predicted_set(w, staleness, ret_set, err);
    *ret_set = pt_weights_now(w); /* θ will not change before this micro-batch's own backward */
    return PT_OK;
}

pt_weight_set pt_weights_for_backward(const pt_weights *w, const pt_weight_set *forward)
{
    if (w->previous)
        return version_before(w, w->updates);
    return forward->stash_slot >= 0 ? *forward : pt_weights_now(w);
}

void pt_weights_release(pt_weights *w, const pt_weight_set *forward)
{
    if (forward->stash_slot >= 0)
        w->stash[forward->stash_slot].holders--;
}

pt_weight_set pt_weights_now(const pt_weights *w)
{
    return (pt_weight_set){w->theta, w->content, w->updates, /*stash_slot=*/-1};
}

/* The next forward will most likely be as late as the last one: its weights are foreseen in the
 * pass that changes θ. Another staleness makes its own. */
static pt_status step_piece(pt_weights *w, int which, double scale, int staleness, pt_error *err)
{
    piece p = piece_of(w, which);
    if (p.at.n == 0)
        return PT_OK;
    pt_prediction c = prediction(w, &p, w->updates + 1, staleness);
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
    for (int i = 0; i < PIECES; i++)
        PT_TRY(step_piece(w, i, scale, staleness, err));
    w->updates++;
    w->content = ++w->last_content;
    if (staleness > 0)
        has_predicted(w, staleness);
    return PT_OK;
}

pt_status pt_weights_restart(pt_weights *w, pt_error *err)
{
    const pt_backend_row *row = w->backend->row;
    size_t bytes = w->n * sizeof(float);
    pt_status status = PT_OK;
    w->updates = 0;
    w->predicted_staleness = 0;
    w->content = ++w->last_content;
    /* v = 0·θ + 0·θ would keep a NaN: copy zeros instead. */
    void *zeros = NULL;
    PT_TRY(row->host_new(w->backend, bytes, &zeros, err));
    for (int i = 0; status == PT_OK && i < w->optimizer->state_buffers; i++)
        status = row->upload(w->backend, w->moments[i], zeros, bytes, err);
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
