/* The engine's life and its passes; the actions are in engine_actions.c. */
#include "pipetrain/engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine_internal.h"
#include "pipetrain/clock.h"

bool pt_engine_is_first(const pt_engine *e)
{
    return e->spec.stage_spec->stage == 0;
}

bool pt_engine_is_last(const pt_engine *e)
{
    return e->spec.stage_spec->stage == e->spec.stage_spec->stages - 1;
}

static pt_status between_ops(void *context, pt_error *err)
{
    pt_engine *e = context;
    for (int i = 0; i < LINKS; i++)
        if (e->links[i])
            PT_TRY(pt_link_poll(e->links[i], err));
    return e->spec.hooks.between ? e->spec.hooks.between(e->spec.hooks.context, err) : PT_OK;
}

/* ---- life -------------------------------------------------------------------------------------
 */

/* Links edge by edge, so that both ends come to each in the same order. */
static const struct {
    int link, from, to; /* seen from a rank */
} edges[LINKS] = {{ACTS_IN, -1, 0}, {GRADS_OUT, 0, -1}, {ACTS_OUT, 0, 1}, {GRADS_IN, 1, 0}};

/* False: there is no such neighbour. */
static bool spec_of(const pt_engine *e, int edge, pt_link_spec *ret_spec)
{
    int rank = pt_world_rank(e->spec.world), size = pt_world_size(e->spec.world);
    int from = rank + edges[edge].from, to = rank + edges[edge].to;
    if (from < 0 || to < 0 || from >= size || to >= size)
        return false;
    *ret_spec = (pt_link_spec){
        .from = from,
        .to = to,
        .slots = e->spec.link_slots,
        .slot_bytes = pt_stage_message_bytes(e->spec.stage, from > rank || to > rank),
        .blocking = e->spec.blocking_sends,
        .buffer = e->buffers[edges[edge].link],
    };
    return true;
}

/* Memory and events of a link's slots. */
static pt_status new_slots(pt_engine *e, int link, const pt_link_spec *spec, pt_error *err)
{
    pt_backend *b = e->spec.backend;
    size_t n = (size_t)spec->slots, bytes = n * spec->slot_bytes;
    PT_TRY(e->spec.device_links ? b->row->dev_new(b, bytes, &e->buffers[link], err)
                                : b->row->host_new(b, bytes, &e->buffers[link], err));
    if (e->spec.device_links)
        PT_TRY(b->row->finish(b, err)); /* MPI knows no lanes: its bytes come after the zeros */
    e->slot_events[link] = calloc(n, sizeof *e->slot_events[link]);
    if (!e->slot_events[link])
        return pt_fail(err, PT_ENOMEM, "no memory for a link");
    for (size_t i = 0; i < n; i++) {
        e->slot_events[link][i].backend = b;
        PT_TRY(b->row->event_new(b, &e->slot_events[link][i].event, err));
    }
    return PT_OK;
}

static void free_slots(pt_engine *e, int link)
{
    pt_backend *b = e->spec.backend;
    (e->spec.device_links ? b->row->dev_free : b->row->host_free)(b, e->buffers[link]);
    for (int i = 0; e->slot_events[link] && i < e->spec.link_slots; i++)
        b->row->event_free(b, e->slot_events[link][i].event);
    free(e->slot_events[link]);
}

/* All memory is there before the first meeting: a rank that lacks some would leave its neighbour
 * waiting. */
static pt_status open_links(pt_engine *e, pt_error *err)
{
    pt_link_spec spec;
    for (int i = 0; i < LINKS; i++)
        if (spec_of(e, i, &spec))
            PT_TRY(pt_link_open(e->spec.world, &spec, &e->links[edges[i].link], err));
    return PT_OK;
}

static pt_status allocate(pt_engine *e, pt_error *err)
{
    const pt_engine_spec *spec = &e->spec;
    size_t samples = (size_t)spec->largest_samples;
    size_t outputs = samples * (size_t)pt_shape_elements(&spec->graph->loss.shape);
    e->timings = calloc((size_t)spec->most_micro_batches + 1, sizeof *e->timings);
    e->outputs = pt_engine_is_last(e) ? calloc(outputs, sizeof *e->outputs) : NULL;
    if (!e->timings || (pt_engine_is_last(e) && !e->outputs))
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    pt_link_spec link;
    for (int i = 0; i < LINKS; i++)
        if (spec_of(e, i, &link))
            PT_TRY(new_slots(e, edges[i].link, &link, err));
    PT_TRY(pt_flights_new(e, err));
    return pt_results_new(e, err);
}

pt_status pt_engine_new(const pt_engine_spec *spec, pt_engine **ret_engine, pt_error *err)
{
    pt_engine *e = calloc(1, sizeof *e);
    if (!e)
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    e->spec = *spec;
    e->between = (pt_between_ops){between_ops, e};
    pt_status status = allocate(e, err);
    if (status != PT_OK && pt_world_size(spec->world) > 1)
        pt_fail_within(err, "rank %d", pt_world_rank(spec->world));
    status = pt_world_agree(spec->world, status, err, NULL);
    if (status == PT_OK)
        status = open_links(e, err);
    if (status == PT_OK && spec->clip > 0)
        status = pt_clipper_init(&e->clip, spec->world, pt_stage_flat(spec->stage), err);
    if (status != PT_OK) {
        pt_engine_free(e);
        return status;
    }
    *ret_engine = e;
    return PT_OK;
}

void pt_engine_set_hooks(pt_engine *e, const pt_engine_hooks *hooks)
{
    e->spec.hooks = *hooks;
}

void pt_engine_free(pt_engine *e)
{
    if (!e)
        return;
    /* After a failure the device may still be reading; what it says has been said before. */
    pt_error ignored = {PT_OK, ""};
    (void)e->spec.backend->row->finish(e->spec.backend, &ignored);
    for (int i = 0; i < LINKS; i++) {
        pt_link_close(e->links[i]);
        free_slots(e, i);
    }
    pt_flights_free(e);
    pt_results_free(e);
    pt_clipper_clear(&e->clip);
    free(e->timings);
    free(e->outputs);
    free(e);
}

static void link_waits(const pt_engine *e, int64_t *ret_receive, int64_t *ret_send)
{
    *ret_receive = *ret_send = 0;
    for (int i = 0; i < LINKS; i++)
        if (e->links[i]) {
            *ret_receive += pt_link_receive_wait_ns(e->links[i]);
            *ret_send += pt_link_send_wait_ns(e->links[i]);
        }
}

static pt_status run_list(pt_engine *e, pt_error *err)
{
    for (int i = 0; i < e->pass->list->n; i++) {
        e->action = &e->pass->list->actions[i];
        PT_TRY(pt_engine_act(e, err));
        PT_TRY(between_ops(e, err));
    }
    for (int i = 0; i < LINKS; i++)
        if (e->links[i] && (i == ACTS_OUT || i == GRADS_OUT))
            PT_TRY(pt_link_flush(e->links[i], err));
    return pt_results_settle(e, err);
}

pt_status pt_engine_run(pt_engine *e, const pt_pass *pass, bool synchronous,
                        pt_pass_result *ret_result, pt_error *err)
{
    int64_t receive = 0, sent = 0;
    link_waits(e, &receive, &sent);
    e->pass = pass;
    e->n_timings = 0;
    e->step = (pt_step_result){0};
    e->sums = (pt_pass_result){0};
    int64_t start = pt_clock_ns();
    PT_TRY(run_list(e, err)); /* on failure `action` says where */
    pt_timings_sum(e->timings, e->n_timings, synchronous, start, pt_clock_ns(), &e->sums);
    link_waits(e, &e->sums.recv_wait_ns, &e->sums.send_wait_ns);
    e->sums.recv_wait_ns -= receive;
    e->sums.send_wait_ns -= sent;
    e->action = NULL;
    *ret_result = e->sums;
    return PT_OK;
}

const pt_timing *pt_engine_timings(const pt_engine *e, int *ret_n)
{
    *ret_n = e->n_timings;
    return e->timings;
}

int64_t pt_engine_busy_ns(const pt_engine *e)
{
    return e->busy_ns;
}

void pt_engine_where(const pt_engine *e, char *text, size_t size)
{
    const pt_action *a = e ? e->action : NULL;
    if (!a) {
        *text = 0;
        return;
    }
    int used =
        snprintf(text, size, "rank %d, stage %d, %s of micro-batch %d, epoch %u",
                 pt_world_rank(e->spec.world), e->spec.stage_spec->stage,
                 pt_action_name((pt_action_kind)a->kind), a->micro_batch, (unsigned)e->pass->epoch);
    if (a->peer >= 0 && used > 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, ", peer rank %d", a->peer);
}
