/* Fake queues, and an adversary who chooses which one goes on.
 *
 * A task is allowed when it is the first of its stream and, if it waits for an event, that
 * recording of the event was reached. Whoever synchronizes draws a mood: nothing but what is needed
 * runs, all else runs first, or dice decide. Whoever only asks lets one stream run ahead of the
 * others. */
#include "fake_queue.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/gpu/emulate/enqueue.h"

enum { PATIENCE = 16 }; /* steps of a stream before another has its turn, about */

typedef enum mood { LAZY, EAGER, DICE, MOODS } mood;

static struct CUstream_st *streams;

/* ---- running -------------------------------------------------------------------------------- */

/* On the device's clock. */
static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec + pt_fake_clock_ahead();
}

void pt_fake_forget_event(cudaEvent_t event)
{
    if (event->destroyed && event->tasks == 0)
        free(event);
}

static bool allowed(const struct CUstream_st *s)
{
    const pt_fake_task *t = s->first;
    return t && (t->kind != WAIT || t->event->reached >= t->serial);
}

static void run_kernel(const pt_fake_task *t)
{
    t->run(t->closure);
    free(t->closure);
    const char *failure = pt_emulate_failure();
    if (failure)
        pt_fake_misuse("%s", failure);
}

static void perform(pt_fake_task *t)
{
    if (t->kind == COPY) {
        pt_fake_check_range(t->dst, t->bytes);
        pt_fake_check_range(t->src, t->bytes);
        memmove(t->dst, t->src, t->bytes);
    } else if (t->kind == FILL) {
        pt_fake_check_range(t->dst, t->bytes);
        memset(t->dst, t->value, t->bytes);
    } else if (t->kind == KERNEL) {
        run_kernel(t);
    } else if (t->kind == RECORD) {
        t->event->reached = t->serial;
        t->event->ns = now_ns();
    }
    if (t->event) {
        t->event->tasks--;
        pt_fake_forget_event(t->event);
    }
}

static void step(struct CUstream_st *s)
{
    pt_fake_task *t = s->first;
    s->first = t->next;
    if (!s->first)
        s->last = &s->first;
    perform(t);
    free(t);
}

/* Some stream that may go on, not `but`; NULL when there is none. */
static struct CUstream_st *any_allowed(const struct CUstream_st *but)
{
    uint32_t n = 0;
    for (struct CUstream_st *s = streams; s; s = s->next)
        n += s != but && allowed(s);
    uint32_t chosen = n > 0 ? pt_fake_below(n) : 0;
    for (struct CUstream_st *s = streams; s; s = s->next)
        if (s != but && allowed(s) && chosen-- == 0)
            return s;
    return NULL;
}

static struct CUstream_st *choose(struct CUstream_st *wanted, mood how)
{
    struct CUstream_st *other = any_allowed(wanted);
    bool mine = allowed(wanted);
    if (how == LAZY)
        return mine ? wanted : other;
    if (how == EAGER || !mine)
        return other ? other : mine ? wanted : NULL;
    return other && pt_fake_below(2) ? other : wanted;
}

static bool reached(const struct CUstream_st *s, const struct CUevent_st *e)
{
    return e ? e->reached >= e->recorded : !s->first;
}

/* The stream in which an event waits to be recorded. */
static struct CUstream_st *stream_of(const struct CUevent_st *e)
{
    for (struct CUstream_st *s = streams; s; s = s->next)
        for (const pt_fake_task *t = s->first; t; t = t->next)
            if (t->kind == RECORD && t->event == e)
                return s;
    return NULL;
}

void pt_fake_run_until(struct CUstream_st *wanted, const struct CUevent_st *event)
{
    mood how = (mood)pt_fake_below(MOODS);
    pt_fake_open();
    while (!reached(wanted, event)) {
        struct CUstream_st *s = choose(wanted, how);
        if (!s)
            pt_fake_misuse("streams wait for each other");
        step(s);
    }
    pt_fake_shut();
}

static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const char *x = a, *y = b;
    return x < y + b_bytes && y < x + a_bytes;
}

bool pt_fake_is_asked(const void *at, size_t bytes, bool or_reads)
{
    for (const struct CUstream_st *s = streams; s; s = s->next)
        for (const pt_fake_task *t = s->first; t; t = t->next)
            if (((t->kind == COPY || t->kind == FILL) && overlap(t->dst, t->bytes, at, bytes)) ||
                (or_reads && t->kind == COPY && overlap(t->src, t->bytes, at, bytes)))
                return true;
    return false;
}

void pt_fake_run_all(void)
{
    for (struct CUstream_st *s = streams; s; s = s->next)
        pt_fake_run_until(s, NULL);
}

void pt_fake_run_to_event(const struct CUevent_st *event)
{
    struct CUstream_st *s = stream_of(event);
    if (s)
        pt_fake_run_until(s, event);
}

/* The stream that was at work goes on for a while, so that it gets far ahead of the others. */
static struct CUstream_st *go_on(void)
{
    static const struct CUstream_st *at_work;
    struct CUstream_st *s = streams;
    while (s && (s != at_work || !allowed(s)))
        s = s->next;
    if (!s || pt_fake_below(PATIENCE) == 0)
        s = any_allowed(NULL);
    at_work = s;
    return s;
}

void pt_fake_pass_time(void)
{
    pt_fake_open();
    for (uint32_t n = pt_fake_below(4); n > 0; n--) {
        struct CUstream_st *s = go_on();
        if (s)
            step(s);
    }
    pt_fake_shut();
}

/* ---- filling -------------------------------------------------------------------------------- */

void pt_fake_queue_join(struct CUstream_st *s)
{
    s->last = &s->first;
    s->next = streams;
    streams = s;
}

void pt_fake_queue_leave(struct CUstream_st *s)
{
    struct CUstream_st **link = &streams;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
}

cudaError_t pt_fake_append(cudaStream_t s, pt_fake_task like)
{
    pt_fake_task *t = malloc(sizeof *t);
    if (!s)
        pt_fake_misuse("the default stream is used");
    if (!t)
        return pt_fake_error(cudaErrorMemoryAllocation);
    *t = like;
    t->next = NULL;
    *s->last = t;
    s->last = &t->next;
    if (t->event)
        t->event->tasks++;
    return cudaSuccess;
}
