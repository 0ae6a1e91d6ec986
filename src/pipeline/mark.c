/* One writer, so that a load and a store are enough to count. The count is stored last and read
 * first: what was written before a move is seen with it. */
#include "pipetrain/mark.h"

#include <stdlib.h>

#include "pipetrain/clock.h"

#define SET(at, value) atomic_store_explicit(at, value, memory_order_relaxed)
#define GET(at)        atomic_load_explicit(at, memory_order_relaxed)

static void moved(pt_mark *m)
{
    atomic_store_explicit(&m->moves, GET(&m->moves) + 1, memory_order_release);
}

void pt_mark_action(pt_mark *m, const pt_action *action, uint32_t epoch, bool training)
{
    if (!m)
        return;
    SET(&m->action, action);
    SET(&m->step, action->step);
    SET(&m->epoch, (int)epoch);
    SET(&m->training, training);
    moved(m);
}

void pt_mark_place(pt_mark *m, const char *what, int64_t step, int peer)
{
    if (!m)
        return;
    SET(&m->action, NULL);
    SET(&m->what, what);
    SET(&m->step, step);
    SET(&m->peer, peer);
    moved(m);
}

void pt_mark_steps_begin(pt_mark *m)
{
    if (m)
        m->since_ns = pt_clock_ns();
}

void pt_mark_step(pt_mark *m)
{
    if (!m)
        return;
    int64_t now = pt_clock_ns(), ended = GET(&m->steps);
    SET(&m->step_ns[ended % PT_MARK_STEPS], now - m->since_ns);
    atomic_store_explicit(&m->steps, ended + 1, memory_order_release);
    m->since_ns = now;
}

pt_marked pt_mark_read(const pt_mark *m)
{
    pt_marked found = {.moves = atomic_load_explicit(&m->moves, memory_order_acquire)};
    found.action = GET(&m->action);
    found.what = found.action ? NULL : GET(&m->what);
    found.step = GET(&m->step);
    found.epoch = GET(&m->epoch);
    found.peer = GET(&m->peer);
    found.training = GET(&m->training);
    return found;
}

static int compare(const void *one, const void *other)
{
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

int64_t pt_mark_median_ns(const pt_mark *m)
{
    int64_t ns[PT_MARK_STEPS];
    int64_t ended = atomic_load_explicit(&m->steps, memory_order_acquire);
    int n = ended < PT_MARK_STEPS ? (int)ended : PT_MARK_STEPS;
    for (int i = 0; i < n; i++)
        ns[i] = GET(&m->step_ns[i]);
    qsort(ns, (size_t)n, sizeof *ns, compare);
    return n > 0 ? ns[n / 2] : 0;
}
