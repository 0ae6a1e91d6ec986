/* Takes the actions of one rank in: who is in flight, which versions and gradients are alive. */
#include "rules.h"

const progress pt_progress[PT_ACTION_KINDS] = {
    [PT_FORWARD] = {RAN, GOT_ACT, true, false, true},
    [PT_BACKWARD_INPUT] = {INPUT, RAN | GOT_GRAD, true, false, true},
    [PT_BACKWARD_WEIGHT] = {WEIGHT, INPUT, true, false, true},
    [PT_CLIP] = {0, 0, true, false, false},
    [PT_UPDATE] = {0, 0, true, false, false},
    [PT_INFER] = {RAN, GOT_ACT, false, true, true},
    [PT_RECV_ACT] = {GOT_ACT, 0, true, true, false},
    [PT_SEND_ACT] = {SENT_ACT, RAN, true, true, false},
    [PT_RECV_GRAD] = {GOT_GRAD, RAN, true, false, false},
    [PT_SEND_GRAD] = {SENT_GRAD, INPUT, true, false, false},
};

static void raise_to(int *peak, int value)
{
    if (value > *peak)
        *peak = value;
}

static void count_versions(const rank_state *s, chunk_state *c)
{
    raise_to(&c->found.versions_peak, c->versions + (c->users[s->updates] == 0));
}

static void begin_stash(rank_state *s, chunk_state *c, micro_batch *m)
{
    m->version = s->updates;
    if (c->users[m->version]++ == 0)
        c->versions++;
    raise_to(&c->found.stash_peak, ++c->stash);
    raise_to(&s->stash_peak, ++s->stash);
}

static void end_stash(rank_state *s, chunk_state *c, const micro_batch *m)
{
    if (--c->users[m->version] == 0)
        c->versions--;
    c->stash--;
    s->stash--;
}

/* From the first that is known of a micro-batch's gradient until its BACKWARD_WEIGHT. Whatever else
 * computes on this chunk, or arrives for it, in between would overwrite it if all shared one
 * memory. Chunks have memory of their own. */
static void track_held(chunk_state *c, const micro_batch *m, const pt_action *a)
{
    bool begun = m->done & INPUT || (m->done & GOT_GRAD && !c->is_last);
    switch (a->kind) {
    case PT_RECV_GRAD:
    case PT_BACKWARD_INPUT:
        if (c->held > begun)
            c->mixed = true;
        c->held += !begun;
        break;
    case PT_FORWARD:
    case PT_RECV_ACT:
        c->mixed |= c->held > 0;
        break;
    case PT_BACKWARD_WEIGHT:
        c->held--;
        break;
    default:
        break;
    }
    raise_to(&c->found.held_peak, c->held);
}

static void take_in_unit(rank_state *s, int index, const pt_action *a)
{
    chunk_state *c = &s->chunks[a->chunk];
    micro_batch *m = &c->of[a->micro_batch];
    track_held(c, m, a);
    m->done |= pt_progress[a->kind].sets;
    c->next[a->kind]++;
    switch (a->kind) {
    case PT_FORWARD:
        m->ran_at = index;
        begin_stash(s, c, m);
        break;
    case PT_INFER:
        m->ran_at = index;
        break;
    case PT_BACKWARD_INPUT:
        m->input_at = index;
        m->backward_version = s->updates;
        break;
    case PT_BACKWARD_WEIGHT:
        end_stash(s, c, m);
        break;
    default:
        break;
    }
}

void pt_rank_state_apply(rank_state *s, int index, const pt_action *a)
{
    if (a->kind == PT_CLIP)
        s->clips++;
    else if (a->kind == PT_UPDATE)
        s->updates++;
    else
        take_in_unit(s, index, a);
    for (int c = 0; c < s->spec->chunks; c++)
        count_versions(s, &s->chunks[c]);
}
