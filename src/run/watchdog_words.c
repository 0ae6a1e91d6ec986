/* A place in words. Whether a rank waits, and for whom, the world knows; what for, the mark. */
#include <stdio.h>

#include "watchdog.h"

/* What a message holds; NULL: the action is none. */
static const char *const contents[PT_ACTION_KINDS] = {
    [PT_RECV_ACT] = "activations",
    [PT_SEND_ACT] = "activations",
    [PT_RECV_GRAD] = "gradients",
    [PT_SEND_GRAD] = "gradients",
};

enum { NOUN_TEXT = 160 };

/* "micro-batch 17 (step 12)" */
static void name_micro_batch(const pt_run *run, const pt_marked *m, char text[NOUN_TEXT])
{
    int64_t step = m->epoch * run->steps_per_epoch + m->step + 1;
    if (m->training)
        snprintf(text, NOUN_TEXT, "micro-batch %d (step %lld)", m->action->micro_batch,
                 (long long)step);
    else
        snprintf(text, NOUN_TEXT, "micro-batch %d (%s)", m->action->micro_batch,
                 run->settings->infer ? "inference" : "evaluation");
}

static void describe_action(const pt_run *run, const pt_marked *m, int awaited, char *text,
                            size_t size)
{
    char micro_batch[NOUN_TEXT];
    int kind = m->action->kind;
    bool sends = kind == PT_SEND_ACT || kind == PT_SEND_GRAD;
    name_micro_batch(run, m, micro_batch);
    if (awaited < 0)
        snprintf(text, size, "is in %s of %s", pt_action_name((pt_action_kind)kind), micro_batch);
    else if (!contents[kind])
        snprintf(text, size, "waits for rank %d in %s of %s", awaited,
                 pt_action_name((pt_action_kind)kind), micro_batch);
    else if (sends)
        snprintf(text, size, "waits for rank %d to take %s of %s", awaited, contents[kind],
                 micro_batch);
    else
        snprintf(text, size, "waits for %s of %s from rank %d", contents[kind], micro_batch,
                 awaited);
}

static void describe_place(const pt_marked *m, int awaited, char *text, size_t size)
{
    char what[NOUN_TEXT];
    int peer = awaited >= 0 ? awaited : m->peer;
    int used = snprintf(what, sizeof what, "%s", m->what ? m->what : "at the start of the run");
    if (m->step > 0 && used > 0 && used < NOUN_TEXT)
        snprintf(what + used, sizeof what - (size_t)used, " %lld", (long long)m->step);
    if (peer >= 0)
        snprintf(text, size, "waits for rank %d %s", peer, what);
    else
        snprintf(text, size, "is %s", what);
}

/* Messages that are put off wait for this rank's own device: it has not come to what they hold. */
void pt_watchdog_describe(const pt_run *run, const pt_seen *seen, char *text, size_t size)
{
    int used = 0;
    if (seen->put_off > 0)
        used = snprintf(text, size, "computes, %d of its messages wait for its device; then it ",
                        seen->put_off);
    if (used < 0 || (size_t)used >= size)
        return;
    if (seen->marked.action)
        describe_action(run, &seen->marked, seen->awaited, text + used, size - (size_t)used);
    else
        describe_place(&seen->marked, seen->awaited, text + used, size - (size_t)used);
}
