/* Micro-batches on this rank, and the host memory that goes with them. A device reads that memory
 * after the calls have returned: a flight, or an input buffer, is used again when the event behind
 * its last reader is reached. */
#include <stdlib.h>

#include "engine_internal.h"

static pt_status new_flight(pt_engine *e, const block *at, flight *f, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    const pt_loss *loss = &e->spec.graph->loss;
    size_t samples = (size_t)e->spec.largest_samples;
    size_t outputs = (size_t)pt_shape_elements(&loss->shape);
    size_t bytes =
        loss->kind == PT_LOSS_MSE ? samples * outputs * sizeof(float) : samples * sizeof(int32_t);
    f->micro_batch = -1;
    PT_TRY(b->row->event_new(b, &f->gone, err));
    return pt_block_is_last(at) ? b->row->host_new(b, bytes, &f->answer, err) : PT_OK;
}

static pt_status new_inputs(pt_engine *e, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    size_t elements =
        (size_t)e->spec.largest_samples * (size_t)pt_shape_elements(&e->spec.graph->input);
    e->n_inputs = b->row->on_device ? 2 : 1; /* a CPU has read the first when the call returns */
    for (int i = 0; i < e->n_inputs; i++) {
        void *input = NULL;
        PT_TRY(b->row->host_new(b, elements * sizeof(float), &input, err));
        e->input[i] = input;
        PT_TRY(b->row->event_new(b, &e->input_read[i], err));
    }
    return PT_OK;
}

static pt_status new_flights(pt_engine *e, block *at, pt_error *err)
{
    int n = at->slots + MORE_FLIGHTS;
    at->flights = calloc((size_t)n, sizeof *at->flights);
    if (!at->flights)
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    at->n_flights = n;
    for (int i = 0; i < n; i++)
        PT_TRY(new_flight(e, at, &at->flights[i], err));
    return PT_OK;
}

pt_status pt_flights_new(pt_engine *e, pt_error *err)
{
    for (int c = 0; c < e->n_blocks; c++)
        PT_TRY(new_flights(e, &e->blocks[c], err));
    return pt_block_is_first(&e->blocks[0]) ? new_inputs(e, err) : PT_OK;
}

static void free_flights(pt_engine *e, block *at)
{
    pt_backend *b = e->spec.backend;
    for (int i = 0; i < at->n_flights; i++) {
        b->row->event_free(b, at->flights[i].gone);
        b->row->host_free(b, at->flights[i].answer);
    }
    free(at->flights);
}

void pt_flights_free(pt_engine *e)
{
    pt_backend *b = e->spec.backend;
    for (int c = 0; c < e->n_blocks; c++)
        free_flights(e, &e->blocks[c]);
    for (int i = 0; i < e->n_inputs; i++) {
        b->row->event_free(b, e->input_read[i]);
        b->row->host_free(b, e->input[i]);
    }
}

/* ---- coming and going -------------------------------------------------------------------------
 */

flight *pt_flight_find(pt_engine *e, int micro_batch)
{
    for (int i = 0; i < e->at->n_flights; i++)
        if (e->at->flights[i].micro_batch == micro_batch)
            return &e->at->flights[i];
    return NULL;
}

/* The one that has been gone for longest; NULL when as many are here as may be. */
static flight *free_flight(block *at)
{
    flight *best = NULL;
    int here = 0;
    for (int i = 0; i < at->n_flights; i++) {
        flight *f = &at->flights[i];
        here += f->micro_batch >= 0;
        if (f->micro_batch < 0 && (!best || f->departed < best->departed))
            best = f;
    }
    return here < at->slots ? best : NULL;
}

pt_timing *pt_flight_timing(pt_engine *e, const flight *f)
{
    /* Evaluation passes may be longer than any training pass: those that do not fit share the
     * last, spare entries. */
    int64_t most = e->spec.most_micro_batches, m = f->micro_batch < most ? f->micro_batch : most;
    return &e->timings[m * e->n_blocks + (e->at - e->blocks)];
}

pt_status pt_flight_arrive(pt_engine *e, flight **ret_flight, pt_error *err)
{
    const pt_pass *pass = e->pass;
    int m = e->action->micro_batch;
    *ret_flight = pt_flight_find(e, m);
    if (*ret_flight)
        return PT_OK;
    flight *f = free_flight(e->at);
    if (!f)
        return pt_fail(err, PT_EINTERNAL, "more than %d micro-batches in flight", e->at->slots);
    PT_TRY(pt_event_await(e->spec.backend, f->gone, &e->between, err));
    f->item = pt_epoch_item_at(&pass->plan, m);
    PT_TRY(pt_stage_begin(e->at->stage, pass->mode, pass->epoch,
                          pt_sampler_at(pass->sampler, f->item.first, f->item.samples),
                          f->item.samples, &e->between, &f->mb, err));
    f->micro_batch = m;
    *pt_flight_timing(e, f) = (pt_timing){
        .epoch = (int32_t)pass->epoch,
        .step = (int32_t)f->item.step,
        .micro_batch = m,
        .samples = (int32_t)f->item.samples,
        .chunk = (int32_t)(e->at - e->blocks),
        .version = pt_weights_updates(pt_stage_weights(e->at->stage)),
    };
    int n = (m + 1) * e->n_blocks;
    if (m < e->spec.most_micro_batches && n > e->n_timings)
        e->n_timings = n;
    *ret_flight = f;
    return PT_OK;
}

pt_status pt_flight_depart(pt_engine *e, flight *f, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    PT_TRY(pt_stage_end(e->at->stage, &f->mb, err));
    f->micro_batch = -1;
    f->departed = ++e->departures;
    return b->row->event_record(b, PT_LANE_COMPUTE, f->gone, err);
}

/* ---- inputs -----------------------------------------------------------------------------------
 */

pt_status pt_input_take(pt_engine *e, float **ret_input, pt_error *err)
{
    PT_TRY(pt_event_await(e->spec.backend, e->input_read[e->next_input], &e->between, err));
    *ret_input = e->input[e->next_input];
    return PT_OK;
}

pt_status pt_input_given(pt_engine *e, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    pt_event *read = e->input_read[e->next_input];
    e->next_input = (e->next_input + 1) % e->n_inputs;
    return b->row->event_record(b, PT_LANE_IN, read, err);
}
