/* Fake streams: queues, and an adversary who chooses which one goes on.
 *
 * A task is allowed when it is the first of its stream and, if it waits for an event, that
 * recording of the event was reached. Whoever synchronizes draws a mood: nothing but what is needed
 * runs, all else runs first, or dice decide. Whoever only asks lets one stream run ahead of the
 * others. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake_inside.h"
#include "tests/gpu/emulate/enqueue.h"

typedef enum task_kind { COPY, FILL, KERNEL, RECORD, WAIT } task_kind;

typedef struct task {
    task_kind kind;
    void *dst;
    const void *src;
    size_t bytes;
    int value; /* of a fill */
    void (*run)(void *closure);
    void *closure;
    cudaEvent_t event;
    uint64_t serial; /* which recording of the event */
    struct task *next;
} task;

struct CUstream_st {
    task *first, **last;
    struct CUstream_st *next;
};

struct CUevent_st {
    uint64_t recorded, reached; /* counts of recordings */
    int tasks;                  /* in queues, naming it */
    bool destroyed;
    int64_t ns;
};

enum { PATIENCE = 16 }; /* steps of a stream before another has its turn, about */

static struct CUstream_st *streams;
static int live_streams, live_events;

typedef enum mood { LAZY, EAGER, DICE, MOODS } mood;

/* ---- running -------------------------------------------------------------------------------- */

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void forget_event(cudaEvent_t event)
{
    if (event->destroyed && event->tasks == 0)
        free(event);
}

static bool allowed(const struct CUstream_st *s)
{
    const task *t = s->first;
    return t && (t->kind != WAIT || t->event->reached >= t->serial);
}

static void run_kernel(const task *t)
{
    t->run(t->closure);
    free(t->closure);
    const char *failure = pt_emulate_failure();
    if (failure)
        pt_fake_misuse("%s", failure);
}

static void perform(task *t)
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
        forget_event(t->event);
    }
}

static void step(struct CUstream_st *s)
{
    task *t = s->first;
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
        for (const task *t = s->first; t; t = t->next)
            if (t->kind == RECORD && t->event == e)
                return s;
    return NULL;
}

/* Until the stream is empty or, unless NULL, the event reached. */
static void run_until(struct CUstream_st *wanted, const struct CUevent_st *event)
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
        for (const task *t = s->first; t; t = t->next)
            if (((t->kind == COPY || t->kind == FILL) && overlap(t->dst, t->bytes, at, bytes)) ||
                (or_reads && t->kind == COPY && overlap(t->src, t->bytes, at, bytes)))
                return true;
    return false;
}

void pt_fake_run_all(void)
{
    for (struct CUstream_st *s = streams; s; s = s->next)
        run_until(s, NULL);
}

/* ---- asking --------------------------------------------------------------------------------- */

static cudaError_t append(cudaStream_t s, task like)
{
    task *t = malloc(sizeof *t);
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

static bool direction_fits(enum cudaMemcpyKind kind, const void *dst, const void *src)
{
    bool to_device = pt_fake_is_device(dst), from_device = pt_fake_is_device(src);
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    default:
        return true;
    }
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    if (pt_fake_strikes(PT_FAKE_COPY))
        return cudaErrorInvalidValue;
    if (!direction_fits(kind, dst, src))
        return pt_fake_error(cudaErrorInvalidMemcpyDirection);
    pt_fake_check_messages(dst, bytes, /*writes=*/true);
    pt_fake_check_messages(src, bytes, /*writes=*/false);
    return append(s, (task){.kind = COPY, .dst = dst, .src = src, .bytes = bytes});
}

cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t s)
{
    if (pt_fake_strikes(PT_FAKE_COPY))
        return cudaErrorInvalidValue;
    pt_fake_check_messages(at, bytes, /*writes=*/true);
    return append(s, (task){.kind = FILL, .dst = at, .value = value, .bytes = bytes});
}

cudaError_t pt_fake_enqueue(cudaStream_t s, void (*run)(void *closure), void *closure)
{
    cudaError_t error = cudaErrorLaunchOutOfResources;
    if (!pt_fake_strikes(PT_FAKE_LAUNCH))
        error = append(s, (task){.kind = KERNEL, .run = run, .closure = closure});
    if (error != cudaSuccess)
        free(closure);
    return error;
}

/* ---- streams -------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret_stream, unsigned flags)
{
    (void)flags;
    if (pt_fake_strikes(PT_FAKE_HANDLE))
        return cudaErrorMemoryAllocation;
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (!s)
        return pt_fake_error(cudaErrorMemoryAllocation);
    s->last = &s->first;
    s->next = streams;
    streams = s;
    live_streams++;
    *ret_stream = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    struct CUstream_st **link = &streams;
    run_until(s, NULL); /* CUDA finishes what was asked */
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    free(s);
    live_streams--;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    run_until(s, NULL);
    return pt_fake_strikes(PT_FAKE_WAIT) ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    pt_fake_run_all();
    return pt_fake_strikes(PT_FAKE_WAIT) ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t event, unsigned flags)
{
    (void)flags;
    return append(s, (task){.kind = WAIT, .event = event, .serial = event->recorded});
}

/* ---- events --------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret_event, unsigned flags)
{
    (void)flags;
    if (pt_fake_strikes(PT_FAKE_HANDLE))
        return cudaErrorMemoryAllocation;
    cudaEvent_t event = calloc(1, sizeof *event);
    if (!event)
        return pt_fake_error(cudaErrorMemoryAllocation);
    live_events++;
    *ret_event = event;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *ret_event)
{
    return cudaEventCreateWithFlags(ret_event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    event->destroyed = true;
    forget_event(event);
    live_events--;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t s)
{
    return append(s, (task){.kind = RECORD, .event = event, .serial = ++event->recorded});
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    struct CUstream_st *s = stream_of(event);
    if (s)
        run_until(s, event);
    return pt_fake_strikes(PT_FAKE_WAIT) ? cudaErrorLaunchFailure : cudaSuccess;
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

/* Time passes while somebody asks: some work is done, or none. */
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    pt_fake_open();
    for (uint32_t n = pt_fake_below(4); n > 0; n--) {
        struct CUstream_st *s = go_on();
        if (s)
            step(s);
    }
    pt_fake_shut();
    if (pt_fake_strikes(PT_FAKE_WAIT))
        return cudaErrorLaunchFailure;
    return event->reached >= event->recorded ? cudaSuccess : pt_fake_error(cudaErrorNotReady);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    if (start->reached == 0 || end->reached == 0 || end->reached < end->recorded)
        return pt_fake_error(cudaErrorNotReady);
    *ms = (float)((double)(end->ns - start->ns) * 1e-6);
    return cudaSuccess;
}

void pt_fake_count_streams(pt_fake_live *live)
{
    live->streams = live_streams;
    live->events = live_events;
}
