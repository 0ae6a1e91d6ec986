/* Plays the lists of all ranks on one thread.
 *
 * Ranks are processes, edges are queues of bounded length, and a list never chooses: what a rank
 * does next does not depend on what arrives first. In such a network the order in which we let the
 * ranks run changes neither whether they get stuck nor when anything happens, so there is no queue
 * of events sorted by time: a rank runs until it must wait, and the time of an action is the
 * maximum of the times of what it waits for. Every action is played once and wakes at most two
 * neighbours (the first and the last rank are neighbours where there are several chunks): the whole
 * is linear in the number of actions. channel.c has the queues.
 *
 * CLIP is a meeting of all ranks.                                                                */
#include <stdlib.h>
#include <string.h>

#include "channel.h"

/* ---- making and freeing ---- */

static void fill_durations(pt_player *p, const pt_stage_cost *costs)
{
    const pt_schedule_spec *spec = &p->schedule->spec;
    for (int block = 0; block < pt_schedule_blocks(spec); block++) {
        double *d = p->duration[block], *rank = p->duration[block % spec->stages];
        const pt_stage_cost *c = &costs[block];
        d[PT_FORWARD] = d[PT_INFER] = c->forward;
        d[PT_BACKWARD_INPUT] = c->backward_input;
        d[PT_BACKWARD_WEIGHT] = c->backward_weight;
        rank[PT_CLIP] += c->clip;
        rank[PT_UPDATE] += c->update;
    }
}

static pt_status open_channels(pt_player *p, const pt_stage_cost *costs, pt_error *err)
{
    int edges = pt_schedule_blocks(&p->schedule->spec) - 1;
    /* The window of messages that anything still asks for is slots at both ends. */
    for (int e = 0; e < edges; e++) {
        PT_TRY(pt_channel_init(&p->act[e], costs[e].send_act, 2 * p->slots, err));
        PT_TRY(pt_channel_init(&p->grad[e], costs[e + 1].send_grad, 2 * p->slots, err));
    }
    return PT_OK;
}

/* More slots than a rank has actions are never used. */
static int useful_slots(const pt_schedule *schedule, int slots)
{
    int most = 1;
    for (int rank = 0; rank < schedule->spec.stages; rank++)
        if (schedule->ranks[rank].n > most)
            most = schedule->ranks[rank].n;
    return slots < most ? slots : most;
}

static pt_status fill_player(pt_player *p, const pt_stage_cost *costs, pt_error *err)
{
    size_t n = (size_t)p->schedule->spec.stages;
    size_t blocks = (size_t)pt_schedule_blocks(&p->schedule->spec);
    pt_stage_cost *unit = calloc(blocks, sizeof(*unit));
    p->cursor = calloc(n, sizeof(*p->cursor));
    p->clock = calloc(n, sizeof(*p->clock));
    p->duration = calloc(blocks, sizeof(*p->duration));
    p->act = calloc(blocks, sizeof(*p->act));
    p->grad = calloc(blocks, sizeof(*p->grad));
    p->queue = calloc(n, sizeof(*p->queue));
    p->queued = calloc(n, sizeof(*p->queued));
    p->clipping = calloc(n, sizeof(*p->clipping));
    pt_status status = PT_OK;
    if (!unit || !p->cursor || !p->clock || !p->duration || !p->act || !p->grad || !p->queue ||
        !p->queued || !p->clipping) {
        status = pt_fail(err, PT_ENOMEM, "no memory to play a schedule of %zu stages", n);
        goto out;
    }
    for (size_t block = 0; block < blocks; block++)
        unit[block] = (pt_stage_cost){.forward = 1, .backward_input = 1, .backward_weight = 1};
    fill_durations(p, costs ? costs : unit);
    PT_GOTO(status, open_channels(p, costs ? costs : unit, err));
out:
    free(unit);
    return status;
}

pt_status pt_player_new(const pt_schedule *schedule, const pt_stage_cost *costs, int slots,
                        bool synchronous, pt_player **ret_player, pt_error *err)
{
    if (!schedule->lowered)
        return pt_fail(err, PT_EINTERNAL, "schedule '%s' is played before it was lowered",
                       schedule->spec.name);
    if (slots < 1)
        return pt_fail(err, PT_EINPUT, "%d slots an edge and direction; give 1 or more", slots);
    pt_player *p = calloc(1, sizeof(*p));
    if (!p)
        return pt_fail(err, PT_ENOMEM, "no memory to play a schedule");
    p->schedule = schedule;
    p->slots = useful_slots(schedule, slots);
    p->synchronous = synchronous;
    p->stop_rank = -1;
    pt_status status = fill_player(p, costs, err);
    if (status != PT_OK) {
        pt_player_free(p);
        return status;
    }
    *ret_player = p;
    return PT_OK;
}

void pt_player_free(pt_player *p)
{
    if (!p)
        return;
    pt_channels_free(p->act, pt_schedule_blocks(&p->schedule->spec));
    pt_channels_free(p->grad, pt_schedule_blocks(&p->schedule->spec));
    free(p->cursor);
    free(p->clock);
    free(p->duration);
    free(p->queue);
    free(p->queued);
    free(p->clipping);
    free(p);
}

/* ---- running ---- */

/* The channel of a message action, or NULL where this end of the pipeline has none. */
static pt_channel *channel_of(const pt_player *p, int rank, const pt_action *a)
{
    int edge = pt_schedule_edge(&p->schedule->spec, rank, a->chunk, (pt_action_kind)a->kind);
    if (edge < 0)
        return NULL;
    return a->kind == PT_SEND_ACT || a->kind == PT_RECV_ACT ? &p->act[edge] : &p->grad[edge];
}

/* Ranks beyond an end are those at the other one. */
static void wake(pt_player *p, int rank)
{
    int ranks = p->schedule->spec.stages;
    rank = (rank + ranks) % ranks;
    if (p->queued[rank])
        return;
    p->queued[rank] = true;
    p->queue[(p->queue_head + p->queue_n++) % ranks] = rank;
}

static void finish(pt_player *p, int rank, double start, double end, const pt_play_visitor *v)
{
    int index = p->cursor[rank]++;
    p->clock[rank] = end;
    if (v)
        v->visit(v->context, rank, index, start, end);
}

/* The last rank to come plays the CLIP of everybody. */
static void come_to_clip(pt_player *p, int rank, const pt_play_visitor *v)
{
    int ranks = p->schedule->spec.stages;
    if (p->clipping[rank])
        return;
    p->clipping[rank] = true;
    p->clip_time = pt_later(p->clip_time, p->clock[rank]);
    if (++p->at_clip < ranks)
        return;
    for (int r = 0; r < ranks; r++) {
        p->clipping[r] = false;
        finish(p, r, p->clip_time, p->clip_time + p->duration[r][PT_CLIP], v);
        if (r != rank)
            wake(p, r);
    }
    p->at_clip = 0;
    p->clip_time = 0;
}

/* Plays one action; false when the rank has to wait, or has nothing left to do. */
static bool advance(pt_player *p, int rank, const pt_play_visitor *v)
{
    const pt_action_list *list = &p->schedule->ranks[rank];
    int index = p->cursor[rank];
    if (index >= list->n || (rank == p->stop_rank && index >= p->stop_at))
        return false;
    const pt_action *a = &list->actions[index];
    double now = p->clock[rank], end = now;
    pt_channel *c;
    switch (a->kind) {
    case PT_RECV_ACT:
    case PT_RECV_GRAD:
        c = channel_of(p, rank, a);
        if (!c || !pt_channel_take(p, c, rank, a->micro_batch, now, &end))
            return false;
        break;
    case PT_SEND_ACT:
    case PT_SEND_GRAD:
        c = channel_of(p, rank, a);
        if (!c || !pt_channel_put(p, c, a->micro_batch, now, &end))
            return false;
        break;
    case PT_CLIP:
        come_to_clip(p, rank, v);
        return p->cursor[rank] > index;
    default:
        if (a->kind >= PT_ACTION_KINDS || a->chunk >= p->schedule->spec.chunks)
            return false;
        end = now + p->duration[pt_schedule_block(&p->schedule->spec, rank, a->chunk)][a->kind];
    }
    finish(p, rank, now, end, v);
    return true;
}

static void reset(pt_player *p)
{
    int ranks = p->schedule->spec.stages;
    for (int rank = 0; rank < ranks; rank++) {
        p->cursor[rank] = 0;
        p->clock[rank] = 0;
        p->queued[rank] = p->clipping[rank] = false;
    }
    for (int e = 0; e < pt_schedule_blocks(&p->schedule->spec); e++) {
        pt_channel_empty(&p->act[e]);
        pt_channel_empty(&p->grad[e]);
    }
    p->crossed_rank = -1;
    p->crossed_message = -1;
    p->queue_head = p->queue_n = 0;
    p->at_clip = 0;
    p->clip_time = 0;
}

pt_play_end pt_player_run(pt_player *p, const pt_play_visitor *visitor)
{
    int ranks = p->schedule->spec.stages;
    reset(p);
    for (int rank = 0; rank < ranks; rank++)
        wake(p, rank);
    while (p->queue_n > 0) {
        int rank = p->queue[p->queue_head];
        p->queue_head = (p->queue_head + 1) % ranks;
        p->queue_n--;
        p->queued[rank] = false;
        int before = p->cursor[rank];
        while (advance(p, rank, visitor))
            ;
        if (p->cursor[rank] > before) {
            wake(p, rank - 1);
            wake(p, rank + 1);
        }
    }
    if (p->crossed_rank >= 0)
        return PT_PLAY_CROSSED;
    for (int rank = 0; rank < ranks; rank++)
        if (p->cursor[rank] < p->schedule->ranks[rank].n)
            return PT_PLAY_STUCK;
    return PT_PLAY_DONE;
}

void pt_player_describe(const pt_player *p, int rank, char *ret_text, size_t bytes)
{
    const pt_action *a = &p->schedule->ranks[rank].actions[p->cursor[rank]];
    const char *name = pt_action_name(a->kind);
    char unit[PT_UNIT_TEXT];
    pt_schedule_name_unit(&p->schedule->spec, a, unit);
    bool sends = a->kind == PT_SEND_ACT || a->kind == PT_SEND_GRAD;
    if (a->kind == PT_CLIP)
        snprintf(ret_text, bytes, "rank %d waits in CLIP of step %d for the other ranks", rank,
                 a->step);
    else if (sends)
        snprintf(ret_text, bytes, "rank %d waits in %s of %s for a free slot of rank %d", rank,
                 name, unit, a->peer);
    else
        snprintf(ret_text, bytes, "rank %d waits in %s of %s from rank %d", rank, name, unit,
                 a->peer);
}
