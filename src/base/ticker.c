#include "pipetrain/ticker.h"

#include <stdlib.h>
#include <time.h>

#include "pipetrain/clock.h"
#include "pipetrain/thread.h"

struct pt_ticker {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t ending;
    bool ends;
    int64_t every_ns;
    pt_tick tick;
    void *context;
};

/* Returns with the mutex held; true: it ends. */
static bool nap(pt_ticker *t)
{
    int64_t until = pt_clock_ns() + t->every_ns;
    struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    while (!t->ends && pt_clock_ns() < until)
        pthread_cond_timedwait(&t->ending, &t->mutex, &at);
    return t->ends;
}

static void *run(void *context)
{
    pt_ticker *t = context;
    int64_t last = pt_clock_ns();
    bool over = false;
    pthread_mutex_lock(&t->mutex);
    while (!over && !nap(t)) {
        int64_t now = pt_clock_ns(), passed = now - last;
        last = now;
        over = t->tick(t->context, passed);
    }
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

static pt_status begin(pt_ticker *t, pt_error *err)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->ending, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return pt_thread_start(run, t, &t->thread, err);
}

static void clear(pt_ticker *t)
{
    pthread_cond_destroy(&t->ending);
    pthread_mutex_destroy(&t->mutex);
    free(t);
}

pt_status pt_ticker_new(int64_t every_ns, pt_tick tick, void *context, pt_ticker **ret_ticker,
                        pt_error *err)
{
    pt_ticker *t = calloc(1, sizeof *t);
    if (!t)
        return pt_fail(err, PT_ENOMEM, "no memory for a thread");
    t->every_ns = every_ns;
    t->tick = tick;
    t->context = context;
    pt_status status = begin(t, err);
    if (status != PT_OK) {
        clear(t);
        return status;
    }
    *ret_ticker = t;
    return PT_OK;
}

void pt_ticker_free(pt_ticker *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->mutex);
    t->ends = true;
    pthread_cond_signal(&t->ending);
    pthread_mutex_unlock(&t->mutex);
    pthread_join(t->thread, NULL);
    clear(t);
}
