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

static void count_versions(rank_state *s)
{
    int alive = s->versions + (s->users[s->updates] == 0);
    if (alive > s->found.versions_peak)
        s->found.versions_peak = alive;
}

static void begin_stash(rank_state *s, micro_batch *m)
{
    m->version = s->updates;
    if (s->users[m->version]++ == 0)
        s->versions++;
    if (++s->stash > s->found.stash_peak)
        s->found.stash_peak = s->stash;
}

static void end_stash(rank_state *s, const micro_batch *m)
{
    if (--s->users[m->version] == 0)
        s->versions--;
    s->stash--;
}

/* From the first that is known of a micro-batch's gradient until its BACKWARD_WEIGHT. Whatever else
 * computes, or arrives, in between would overwrite it if all shared one memory. */
static void track_held(rank_state *s, const micro_batch *m, const pt_action *a)
{
    bool begun = m->done & INPUT || (m->done & GOT_GRAD && s->rank < s->spec->stages - 1);
    switch (a->kind) {
    case PT_RECV_GRAD:
    case PT_BACKWARD_INPUT:
        if (s->held > begun)
            s->mixed = true;
        s->held += !begun;
        break;
    case PT_FORWARD:
    case PT_RECV_ACT:
        s->mixed |= s->held > 0;
        break;
    case PT_BACKWARD_WEIGHT:
        s->held--;
        break;
    default:
        break;
    }
    if (s->held > s->found.held_peak)
        s->found.held_peak = s->held;
}

void pt_rank_state_apply(rank_state *s, int index, const pt_action *a)
{
    micro_batch *m = &s->of[a->micro_batch];
    track_held(s, m, a);
    m->done |= pt_progress[a->kind].sets;
    s->next[a->kind]++;
    switch (a->kind) {
    case PT_FORWARD:
        m->ran_at = index;
        begin_stash(s, m);
        break;
    case PT_INFER:
        m->ran_at = index;
        break;
    case PT_BACKWARD_INPUT:
        m->input_at = index;
        m->backward_version = s->updates;
        break;
    case PT_BACKWARD_WEIGHT:
        end_stash(s, m);
        break;
    case PT_CLIP:
        s->clips++;
        break;
    case PT_UPDATE:
        s->updates++;
        break;
    default:
        break;
    }
    count_versions(s);
}
