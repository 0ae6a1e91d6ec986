/* Which weights a pass reads; see weights.h for the picture. */
#include <string.h>

#include "weights_internal.h"

bool pt_weights_predicts(const pt_weights_spec *spec)
{
    return strcmp(spec->predictor->name, "none") != 0;
}

bool pt_weights_keep(const pt_weights_spec *spec)
{
    return spec->stash || spec->gap_aware;
}

weights_piece pt_weights_piece(const pt_weights *w, int which)
{
    size_t decayed = w->spec.optimizer.decay > 0 ? w->spec.flat->decayed_elements : w->n;
    size_t begin = which ? decayed : 0;
    weights_piece p = {.optimizer = w->spec.optimizer, .begin = begin};
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

pt_prediction pt_weights_prediction(const pt_weights *w, const weights_piece *p, int64_t step,
                                    int staleness)
{
    return w->spec.predictor->predict(&p->optimizer, &w->spec.lr, step, staleness);
}

/* How many micro-batches' gradients a prediction that is made now goes by. */
static int gathered(const pt_weights *w)
{
    return w->spec.predictor->gathers ? w->gathered : 0;
}

static pt_status predict_piece(pt_weights *w, const weights_piece *p, int staleness, float *dev,
                               pt_error *err)
{
    if (!gathered(w)) {
        pt_prediction c = pt_weights_prediction(w, p, w->updates, staleness);
        return w->optimizer->foresee(w->backend, &p->optimizer, w->updates, &p->at, &c, dev, err);
    }
    pt_prediction c = pt_weights_prediction(w, p, w->updates + 1, staleness - 1);
    c.apart = true;
    return w->optimizer->step(w->backend, &p->optimizer, w->updates, pt_weights_lr(w), /*scale=*/1,
                              &p->at, &c, dev, err);
}

static pt_status predict_into(pt_weights *w, int staleness, float *dev, pt_error *err)
{
    for (int i = 0; i < WEIGHT_PIECES; i++) {
        weights_piece p = pt_weights_piece(w, i);
        if (p.at.n > 0)
            PT_TRY(predict_piece(w, &p, staleness, dev + p.begin, err));
    }
    return PT_OK;
}

void pt_weights_has_predicted(pt_weights *w, int staleness)
{
    w->predicted_from = w->content;
    w->predicted_staleness = staleness;
    w->predicted_gathered = gathered(w);
    w->predicted_content = ++w->last_content;
}

static pt_status predicted_set(pt_weights *w, int staleness, pt_weight_set *ret_set, pt_error *err)
{
    if (w->predicted_from != w->content || w->predicted_staleness != staleness ||
        w->predicted_gathered != gathered(w)) {
        PT_TRY(predict_into(w, staleness, w->predicted, err));
        pt_weights_has_predicted(w, staleness);
    }
    *ret_set = (pt_weight_set){w->predicted, w->predicted_content, w->updates, /*stash_slot=*/-1};
    return PT_OK;
}

static bool holds(const pt_weights *w, const stash_slot *slot, int staleness)
{
    return slot->holders > 0 && slot->made_from == w->content &&
           (!pt_weights_predicts(&w->spec) ||
            (slot->staleness == staleness && slot->gathered == gathered(w)));
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
    if (pt_weights_predicts(&w->spec))
        PT_TRY(predict_into(w, staleness, slot->dev, err));
    else
        PT_TRY(w->backend->row->copy(w->backend, slot->dev, w->theta, w->n * sizeof(float), err));
    slot->content = ++w->last_content;
    slot->made_from = w->content;
    slot->version = w->updates;
    slot->staleness = staleness;
    slot->gathered = gathered(w);
    slot->holders = 1;
    *ret_set = (pt_weight_set){slot->dev, slot->content, slot->version, free_slot};
    return PT_OK;
}

/* What step t reads on the way there, `updates` steps done. */
static pt_weight_set version_before(const pt_weights *w, int64_t t)
{
    if (t <= w->spec.lr.first_late || t > w->updates)
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
    if (staleness > 0 && pt_weights_keep(&w->spec))
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
    return w->spec.stash && forward->stash_slot >= 0 ? *forward : pt_weights_back(w);
}

void pt_weights_release(pt_weights *w, const pt_weight_set *forward)
{
    if (forward->stash_slot >= 0)
        w->stash[forward->stash_slot].holders--;
}
