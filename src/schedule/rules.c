/* What one rank's list must obey by itself, whatever the other ranks do.
 *
 * Every micro-batch walks through the stages of pt_progress, each once, each with what it needs
 * done before; an end of the pipeline has done its missing messages from the start. On top of that
 * the list must keep the arithmetic of training: everything in micro-batch order (batch statistics
 * and gradients are accumulated in that order, which is what makes runs bitwise equal), one UPDATE
 * between the last gradient of a step and the first of the next, and the staleness it claims. */
#include <stdlib.h>
#include <string.h>

#include "rules.h"

/* The action that sets a bit; for RAN it depends on the span. */
static pt_action_kind maker_of(int bit, bool training)
{
    for (int kind = 0; kind < PT_ACTION_KINDS; kind++)
        if (pt_progress[kind].sets == bit &&
            (training ? pt_progress[kind].training : pt_progress[kind].inference))
            return (pt_action_kind)kind;
    return PT_ACTION_KINDS;
}

#define FLAW(s, index_, action_, ...)                                                              \
    (snprintf((s)->flaw->reason, sizeof((s)->flaw->reason), __VA_ARGS__),                          \
     (s)->flaw->rank = (s)->rank, (s)->flaw->index = (index_), (s)->flaw->action = (action_),      \
     PT_EINPUT)

static pt_status check_peer(rank_state *s, int index, const pt_action *a)
{
    bool message = a->kind >= PT_RECV_ACT;
    int peer = pt_schedule_peer(s->spec, s->rank, a->chunk, (pt_action_kind)a->kind);
    if (message && peer < 0)
        return FLAW(s, index, *a, "there is no stage on that side of rank %d", s->rank);
    if (a->peer != peer && message)
        return FLAW(s, index, *a, "its peer is rank %d and must be rank %d", a->peer, peer);
    if (a->peer != peer)
        return FLAW(s, index, *a, "it names rank %d as its peer, but is no message", a->peer);
    return PT_OK;
}

static bool is_of_step(const pt_action *a)
{
    return a->kind == PT_CLIP || a->kind == PT_UPDATE;
}

static pt_status check_fields(rank_state *s, int index, const pt_action *a)
{
    if (a->kind >= PT_ACTION_KINDS)
        return FLAW(s, index, *a, "%d is no kind of action", a->kind);
    const progress *p = &pt_progress[a->kind];
    if (!(s->training ? p->training : p->inference))
        return FLAW(s, index, *a, "it has no place in a span of %s",
                    s->training ? "training" : "inference");
    if (a->micro_batch < 0 || a->micro_batch >= s->spec->micro_batches)
        return FLAW(s, index, *a, "micro-batches of this span are 0 to %d",
                    s->spec->micro_batches - 1);
    if (a->step != a->micro_batch / s->spec->per_step)
        return FLAW(s, index, *a, "it says step %d, but the micro-batch belongs to step %d",
                    a->step, a->micro_batch / s->spec->per_step);
    if (a->chunk >= s->spec->chunks)
        return FLAW(s, index, *a, "it names chunk %d; the chunks of a rank are 0 to %d", a->chunk,
                    s->spec->chunks - 1);
    if (a->chunk != 0 && is_of_step(a))
        return FLAW(s, index, *a, "it is for all chunks of its rank and must carry 0, not %d",
                    a->chunk);
    if (a->kind != PT_FORWARD && a->staleness != 0)
        return FLAW(s, index, *a, "staleness %d stands on an action that is no FORWARD",
                    a->staleness);
    return check_peer(s, index, a);
}

/* ---- what an action may stand on ---- */

static pt_status check_micro_batch(rank_state *s, int index, const pt_action *a)
{
    const progress *p = &pt_progress[a->kind];
    const chunk_state *c = &s->chunks[a->chunk];
    const char *name = pt_action_name(a->kind);
    int done = c->of[a->micro_batch].done, missing = p->needs & ~done;
    if (done & p->sets)
        return FLAW(s, index, *a, "it is the second %s of this micro-batch", name);
    if (missing)
        return FLAW(s, index, *a, "it comes before the %s of the same micro-batch",
                    pt_action_name(maker_of(missing & -missing, s->training)));
    if (p->ordered && a->micro_batch != c->next[a->kind])
        return FLAW(s, index, *a, "it is out of order: the next %s is that of micro-batch %d", name,
                    c->next[a->kind]);
    /* Ops whose gradient is one pass add up in BACKWARD_INPUT already. */
    if ((a->kind == PT_BACKWARD_INPUT || a->kind == PT_BACKWARD_WEIGHT) && a->step != s->updates)
        return FLAW(s, index, *a,
                    "it would add to the gradient of step %d, whose UPDATE is missing", s->updates);
    return PT_OK;
}

/* CLIP and UPDATE */
static pt_status check_step(rank_state *s, int index, const pt_action *a)
{
    const char *name = pt_action_name(a->kind);
    int last = pt_schedule_last_of(s->spec, a->step);
    if (a->micro_batch != last)
        return FLAW(s, index, *a, "it must carry the last micro-batch of its step, which is %d",
                    last);
    if (a->step != (a->kind == PT_CLIP ? s->clips : s->updates))
        return FLAW(s, index, *a, "it is for step %d, but the next %s is that of step %d", a->step,
                    name, a->kind == PT_CLIP ? s->clips : s->updates);
    for (int c = 0; c < s->spec->chunks; c++) {
        pt_action next = {.micro_batch = s->chunks[c].next[PT_BACKWARD_WEIGHT],
                          .chunk = (uint8_t)c};
        char unit[PT_UNIT_TEXT];
        if (next.micro_batch <= last)
            return FLAW(s, index, *a, "it comes before the BACKWARD_WEIGHT of %s",
                        pt_schedule_name_unit(s->spec, &next, unit));
    }
    if (a->kind == PT_CLIP && !s->spec->clip)
        return FLAW(s, index, *a, "this schedule does not clip");
    if (a->kind == PT_UPDATE && s->spec->clip && s->clips != a->step + 1)
        return FLAW(s, index, *a, "the CLIP of step %d is missing before it", a->step);
    return PT_OK;
}

/* ---- what must be true at the end ---- */

static pt_status check_finished(rank_state *s, int chunk, int m, int all)
{
    const micro_batch *of = &s->chunks[chunk].of[m];
    int missing = all & ~of->done;
    if (!missing)
        return PT_OK;
    int bit = missing & -missing, end = s->schedule->ranks[s->rank].n;
    pt_action_kind kind = maker_of(bit, s->training);
    pt_action action = {.kind = (uint8_t)kind,
                        .chunk = (uint8_t)chunk,
                        .micro_batch = m,
                        .step = m / s->spec->per_step,
                        .peer = pt_schedule_peer(s->spec, s->rank, chunk, kind)};
    int index = bit == SENT_ACT ? of->ran_at + 1 : bit == SENT_GRAD ? of->input_at + 1 : end;
    return FLAW(s, index, action, "it is missing; here is where it should stand");
}

static pt_status check_staleness(rank_state *s, chunk_state *c, int m)
{
    const micro_batch *of = &c->of[m];
    const pt_action *forward = &s->schedule->ranks[s->rank].actions[of->ran_at];
    int updates = of->backward_version - of->version;
    if (forward->staleness != updates)
        return FLAW(s, of->ran_at, *forward,
                    "it says staleness %d, but this rank makes %d updates between it and its own "
                    "backward",
                    forward->staleness, updates);
    if (s->schedule->synchronous && updates != 0)
        return FLAW(s, of->ran_at, *forward,
                    "its staleness is %d, but this schedule promises never to be stale", updates);
    if (updates > c->found.staleness_max)
        c->found.staleness_max = updates;
    c->staleness += updates;
    return PT_OK;
}

static pt_status check_end_of_chunk(rank_state *s, chunk_state *c)
{
    for (int m = 0; s->training && m < s->spec->micro_batches; m++)
        PT_TRY(check_staleness(s, c, m));
    if (!c->mixed)
        c->found.held_peak = 0;
    c->found.all_stash_peak = s->stash_peak;
    c->found.staleness_mean = (double)c->staleness / s->spec->micro_batches;
    return PT_OK;
}

static pt_status check_updates(rank_state *s)
{
    int steps = pt_schedule_steps(s->spec);
    if (s->updates != steps) {
        pt_action update = {.kind = PT_UPDATE,
                            .micro_batch = pt_schedule_last_of(s->spec, s->updates),
                            .step = s->updates,
                            .peer = -1};
        return FLAW(s, s->schedule->ranks[s->rank].n, update, "it is missing");
    }
    return PT_OK;
}

static pt_status check_end(rank_state *s)
{
    int all = GOT_ACT | RAN | SENT_ACT;
    if (s->training)
        all |= GOT_GRAD | INPUT | SENT_GRAD | WEIGHT;
    for (int c = 0; c < s->spec->chunks; c++)
        for (int m = 0; m < s->spec->micro_batches; m++)
            PT_TRY(check_finished(s, c, m, all));
    if (s->training)
        PT_TRY(check_updates(s));
    for (int c = 0; c < s->spec->chunks; c++)
        PT_TRY(check_end_of_chunk(s, &s->chunks[c]));
    return PT_OK;
}

static pt_status walk(rank_state *s)
{
    const pt_action_list *list = &s->schedule->ranks[s->rank];
    for (int i = 0; i < list->n; i++) {
        const pt_action *a = &list->actions[i];
        PT_TRY(check_fields(s, i, a));
        PT_TRY(is_of_step(a) ? check_step(s, i, a) : check_micro_batch(s, i, a));
        pt_rank_state_apply(s, i, a);
    }
    return check_end(s);
}

static pt_status begin_chunk(rank_state *s, int chunk, pt_error *err)
{
    chunk_state *c = &s->chunks[chunk];
    int n = s->spec->micro_batches, block = pt_schedule_block(s->spec, s->rank, chunk);
    c->is_last = block == pt_schedule_blocks(s->spec) - 1;
    c->of = calloc((size_t)n, sizeof(*c->of));
    c->users = calloc((size_t)pt_schedule_steps(s->spec) + 1, sizeof(*c->users));
    if (!c->of || !c->users)
        return pt_fail(err, PT_ENOMEM, "no memory to check a schedule of %d micro-batches", n);
    for (int m = 0; m < n; m++)
        c->of[m].done =
            (block == 0 ? GOT_ACT | SENT_GRAD : 0) | (c->is_last ? SENT_ACT | GOT_GRAD : 0);
    return PT_OK;
}

pt_status pt_schedule_check_rank(const pt_schedule *schedule, int rank, pt_schedule_rank *ret_ranks,
                                 pt_flaw *ret_flaw, pt_error *err)
{
    const pt_schedule_spec *spec = &schedule->spec;
    rank_state s = {.schedule = schedule,
                    .spec = spec,
                    .rank = rank,
                    .training = pt_schedule_trains(schedule),
                    .flaw = ret_flaw};
    s.chunks = calloc((size_t)spec->chunks, sizeof(*s.chunks));
    if (!s.chunks)
        return pt_fail(err, PT_ENOMEM, "no memory to check %d chunks", spec->chunks);
    pt_status status = PT_OK;
    for (int c = 0; c < spec->chunks; c++)
        PT_GOTO(status, begin_chunk(&s, c, err));
    PT_GOTO(status, walk(&s));
    for (int c = 0; c < spec->chunks; c++)
        ret_ranks[pt_schedule_block(spec, rank, c)] = s.chunks[c].found;
out:
    for (int c = 0; c < spec->chunks; c++) {
        free(s.chunks[c].of);
        free(s.chunks[c].users);
    }
    free(s.chunks);
    return status;
}
