/* The engine's life and its passes; the actions are in engine_actions.c. */
#include "pipetrain/engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine_internal.h"
#include "pipetrain/clock.h"

bool pt_block_is_first(const block *b)
{
    return b->spec->stage == 0;
}

bool pt_block_is_last(const block *b)
{
    return b->spec->stage == b->spec->stages - 1;
}

int pt_engine_flights(const pt_engine *e)
{
    int n = 0;
    for (int c = 0; c < e->n_blocks; c++)
        n += e->blocks[c].n_flights;
    return n;
}

/* The last chunk is the one that can be the model's last block. */
static bool has_last_block(const pt_engine *e)
{
    return pt_block_is_last(&e->blocks[e->n_blocks - 1]);
}

static pt_status between_ops(void *context, pt_error *err)
{
    pt_engine *e = context;
    PT_TRY(pt_links_poll(e, err));
    return e->spec.hooks.between ? e->spec.hooks.between(e->spec.hooks.context, err) : PT_OK;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static pt_status make_blocks(pt_engine *e, pt_error *err)
{
    e->blocks = calloc((size_t)e->spec.chunks, sizeof *e->blocks);
    if (!e->blocks)
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    e->n_blocks = e->spec.chunks;
    for (int c = 0; c < e->n_blocks; c++) {
        const pt_engine_block *from = &e->spec.blocks[c];
        e->blocks[c] = (block){.stage = from->stage, .spec = from->spec, .slots = from->slots};
    }
    e->spec.blocks = NULL; /* the caller's */
    return PT_OK;
}

static pt_status allocate(pt_engine *e, pt_error *err)
{
    const pt_engine_spec *spec = &e->spec;
    size_t samples = (size_t)spec->largest_samples;
    size_t outputs = samples * (size_t)pt_shape_elements(&spec->graph->loss.shape);
    size_t timings = ((size_t)spec->most_micro_batches + 1) * (size_t)spec->chunks;
    PT_TRY(make_blocks(e, err));
    e->timings = calloc(timings, sizeof *e->timings);
    e->outputs = has_last_block(e) ? calloc(outputs, sizeof *e->outputs) : NULL;
    if (!e->timings || (has_last_block(e) && !e->outputs))
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    PT_TRY(pt_links_new(e, err));
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
        status = pt_links_open(e, err);
    if (status == PT_OK && spec->clip > 0)
        status = pt_clipper_init(&e->clip, spec->world, e->blocks, e->n_blocks, err);
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
    for (int c = 0; c < e->n_blocks; c++)
        pt_links_close(e, &e->blocks[c]);
    pt_flights_free(e);
    pt_results_free(e);
    pt_clipper_clear(&e->clip);
    free(e->timings);
    free(e->outputs);
    free(e->blocks);
    free(e);
}

/* Steps begin in their order; the last one is known before anything of it is done. */
static pt_status begin_step(pt_engine *e, int64_t step, pt_error *err)
{
    bool last = false;
    e->next_step = step + 1;
    if (e->pass->mode == PT_TRAIN && e->spec.hooks.step_begins)
        PT_TRY(e->spec.hooks.step_begins(e->spec.hooks.context, step, &last, err));
    if (last)
        e->end_step = e->next_step;
    return PT_OK;
}

static pt_status run_list(pt_engine *e, pt_error *err)
{
    for (int i = 0; i < e->pass->list->n; i++) {
        const pt_action *action = &e->pass->list->actions[i];
        if (action->step < e->pass->first_step || action->step >= e->end_step)
            continue;
        if (action->step >= e->next_step)
            PT_TRY(begin_step(e, action->step, err));
        e->action = action;
        e->at = &e->blocks[e->action->chunk];
        pt_mark_action(e->spec.mark, action, e->epoch, e->pass->mode == PT_TRAIN);
        PT_TRY(pt_engine_act(e, err));
        if (action->kind == PT_UPDATE)
            pt_mark_step(e->spec.mark);
        PT_TRY(between_ops(e, err));
    }
    pt_mark_place(e->spec.mark, "at the end of a pass", /*step=*/0, /*peer=*/-1);
    PT_TRY(pt_links_flush(e, err));
    return pt_results_settle(e, err);
}

static void begin_pass(pt_engine *e, const pt_pass *pass)
{
    int64_t before = pt_epoch_micro_batches_of(&pass->plan, pass->first_step);
    e->pass = pass;
    e->epoch = pass->epoch;
    e->first_timing = e->n_timings = (int)before * e->n_blocks;
    e->next_step = pass->first_step;
    e->end_step = INT64_MAX;
    pt_mark_steps_begin(e->spec.mark);
    e->step = (pt_step_result){0};
    e->sums = pass->before ? *pass->before : (pt_pass_result){0};
}

int pt_engine_staleness(const pt_engine *e)
{
    int64_t most = e->action->step - e->pass->first_step;
    return e->action->staleness < most ? e->action->staleness : (int)most;
}

pt_status pt_engine_run(pt_engine *e, const pt_pass *pass, bool synchronous,
                        pt_pass_result *ret_result, pt_error *err)
{
    int64_t receive[2], sent[2];
    begin_pass(e, pass);
    pt_links_waits(e, &receive[0], &sent[0]);
    int64_t start = pt_clock_ns();
    PT_TRY(run_list(e, err)); /* on failure `action` says where */
    pt_timings_sum(e->timings + e->first_timing, e->n_timings - e->first_timing, synchronous, start,
                   pt_clock_ns(), &e->sums);
    pt_links_waits(e, &receive[1], &sent[1]);
    e->sums.recv_wait_ns += receive[1] - receive[0];
    e->sums.send_wait_ns += sent[1] - sent[0];
    e->sums.end_step = e->next_step;
    e->action = NULL;
    *ret_result = e->sums;
    return PT_OK;
}

const pt_timing *pt_engine_timings(const pt_engine *e, int *ret_n)
{
    *ret_n = e->n_timings - e->first_timing;
    return e->timings + e->first_timing;
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
                 pt_world_rank(e->spec.world), e->at->spec->stage,
                 pt_action_name((pt_action_kind)a->kind), a->micro_batch, (unsigned)e->epoch);
    if (a->peer >= 0 && used > 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, ", peer rank %d", a->peer);
}
