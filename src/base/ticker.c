#include "pipetrain/ticker.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pipetrain/clock.h"

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

static int begin(pt_ticker *t)
{
    pthread_condattr_t monotonic;
    sigset_t all, before;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->ending, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&t->thread, NULL, run, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
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
    int code = begin(t);
    if (code != 0) {
        clear(t);
        return pt_fail(err, PT_EIO, "no thread: %s", strerror(code));
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
