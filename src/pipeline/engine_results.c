/* Losses and times, read when the device has come to them.
 *
 * Both are asked for in the order of the compute lane and are reached in that order, so each is a
 * ring: the oldest is looked at first. A full ring waits for its oldest. On CPUs an entry is
 * reached as soon as it is asked for. */
#include <stdlib.h>

#include "engine_internal.h"

static int newest(const ring *r)
{
    return (r->first + r->n - 1) % r->room;
}

static void push(ring *r)
{
    r->n++;
}

static void drop_oldest(ring *r)
{
    r->first = (r->first + 1) % r->room;
    r->n--;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static pt_status new_spans(pt_engine *e, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    int n = 4 * pt_engine_flights(e); /* forward, two halves of a backward, an update */
    e->spans = calloc((size_t)n, sizeof *e->spans);
    if (!e->spans)
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    e->span_ring.room = n;
    for (int i = 0; i < n; i++) {
        PT_TRY(b->row->event_new(b, &e->spans[i].begin, err));
        PT_TRY(b->row->event_new(b, &e->spans[i].end, err));
    }
    return PT_OK;
}

static pt_status new_losses(pt_engine *e, const block *last, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    int n = last->n_flights;
    void *results = NULL;
    e->losses = calloc((size_t)n, sizeof *e->losses);
    if (!e->losses)
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    e->loss_ring.room = n;
    for (int i = 0; i < n; i++)
        PT_TRY(b->row->event_new(b, &e->losses[i].event, err));
    PT_TRY(b->row->host_new(b, (size_t)n * sizeof *e->loss_results, &results, err));
    e->loss_results = results;
    return PT_OK;
}

pt_status pt_results_new(pt_engine *e, pt_error *err)
{
    const block *last = &e->blocks[e->n_blocks - 1];
    PT_TRY(new_spans(e, err));
    return pt_block_is_last(last) ? new_losses(e, last, err) : PT_OK;
}

void pt_results_free(pt_engine *e)
{
    pt_backend *b = e->spec.backend;
    for (int i = 0; i < e->span_ring.room; i++) {
        b->row->event_free(b, e->spans[i].begin);
        b->row->event_free(b, e->spans[i].end);
    }
    for (int i = 0; i < e->loss_ring.room; i++)
        b->row->event_free(b, e->losses[i].event);
    b->row->host_free(b, e->loss_results);
    free(e->spans);
    free(e->losses);
}

/* ---- times ------------------------------------------------------------------------------------
 */

static void read_oldest_span(pt_engine *e)
{
    pt_backend *b = e->spec.backend;
    const span *s = &e->spans[e->span_ring.first];
    int64_t begin = b->row->event_ns(b, s->begin), end = b->row->event_ns(b, s->end);
    if (*s->start_ns == 0)
        *s->start_ns = begin;
    *s->ns += end - begin;
    e->busy_ns += end - begin;
    drop_oldest(&e->span_ring);
}

static pt_status wait_for_oldest_span(pt_engine *e, pt_error *err)
{
    PT_TRY(pt_event_await(e->spec.backend, e->spans[e->span_ring.first].end, &e->between, err));
    read_oldest_span(e);
    return PT_OK;
}

pt_status pt_span_begin(pt_engine *e, int64_t *start_ns, int64_t *ns, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    if (e->span_ring.n == e->span_ring.room)
        PT_TRY(wait_for_oldest_span(e, err));
    push(&e->span_ring);
    span *s = &e->spans[newest(&e->span_ring)];
    s->start_ns = start_ns;
    s->ns = ns;
    return b->row->event_record(b, PT_LANE_COMPUTE, s->begin, err);
}

pt_status pt_span_end(pt_engine *e, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    PT_TRY(b->row->event_record(b, PT_LANE_COMPUTE, e->spans[newest(&e->span_ring)].end, err));
    while (e->span_ring.n > 0) {
        bool done = false;
        PT_TRY(b->row->event_done(b, e->spans[e->span_ring.first].end, &done, err));
        if (!done)
            return PT_OK;
        read_oldest_span(e);
    }
    return PT_OK;
}

/* ---- losses -----------------------------------------------------------------------------------
 */

static pt_status collect_oldest(pt_engine *e, pt_error *err)
{
    int i = e->loss_ring.first;
    PT_TRY(pt_event_await(e->spec.backend, e->losses[i].event, &e->between, err));
    const pt_loss_result *result = &e->loss_results[i];
    if (e->pass->mode == PT_TRAIN) {
        e->step.loss += result->loss;
        e->step.correct += result->correct;
        e->step.samples += e->losses[i].samples;
    } else {
        e->sums.loss += result->loss;
        e->sums.correct += result->correct;
        e->sums.samples += e->losses[i].samples;
    }
    drop_oldest(&e->loss_ring);
    return PT_OK;
}

pt_status pt_loss_ask(pt_engine *e, flight *f, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    if (e->loss_ring.n == e->loss_ring.room)
        PT_TRY(collect_oldest(e, err));
    push(&e->loss_ring);
    int i = newest(&e->loss_ring);
    e->losses[i].samples = f->item.samples;
    PT_TRY(pt_stage_loss(e->at->stage, &f->mb, f->answer, 1.0f / (float)f->item.step_samples,
                         &e->loss_results[i], err));
    return b->row->event_record(b, PT_LANE_COMPUTE, e->losses[i].event, err);
}

pt_status pt_loss_collect(pt_engine *e, pt_error *err)
{
    while (e->loss_ring.n > 0)
        PT_TRY(collect_oldest(e, err));
    return PT_OK;
}

pt_status pt_results_settle(pt_engine *e, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    for (int c = 0; c < e->n_blocks; c++)
        for (int i = 0; i < e->blocks[c].n_flights; i++)
            PT_TRY(pt_event_await(b, e->blocks[c].flights[i].gone, &e->between, err));
    PT_TRY(pt_loss_collect(e, err));
    while (e->span_ring.n > 0)
        PT_TRY(wait_for_oldest_span(e, err));
    return b->row->finish(b, err);
}
