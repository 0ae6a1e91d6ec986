#include "watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pipetrain/clock.h"
#include "pipetrain/log.h"
#include "progress.h"

static const char VARIABLE[] = "PIPETRAIN_STALL";

/* A look costs a microsecond; between them a rank can stand unnoticed. */
static const int64_t LONGEST_NAP_NS = 50000000;
enum { LOOKS_PER_LIMIT = 10 };

static const int64_t SHOW_NS = 250000000; /* between touches of the progress file, at the least */

/* Of auto. */
static const double AUTO_S = 5, AUTO_STEPS = 10;
/* Before the first step has ended: data is loaded, stages are measured. */
static const double START_FACTOR = 10, START_S = 60;

struct pt_watchdog {
    pt_run *run;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t ending;
    bool ends;
    pt_seen seen;       /* at the last look … */
    int64_t stood_ns;   /* … and for how long it has been at the same */
    int64_t shown_ns;   /* since the progress file was touched */
    int64_t resumed_ns; /* above 0: the process was stopped lately, others may still be, or be
                           ended: twice the limit */
};

int64_t pt_watchdog_limit_ns(double limit_s, int64_t median_ns)
{
    double s = limit_s > 0 ? limit_s : AUTO_S;
    if (limit_s == 0 && AUTO_STEPS * (double)median_ns / 1e9 > s)
        s = AUTO_STEPS * (double)median_ns / 1e9;
    if (median_ns == 0 && s < START_S)
        s = START_FACTOR * s < START_S ? START_FACTOR * s : START_S;
    return (int64_t)(s * 1e9);
}

/* ---- the thread -------------------------------------------------------------------------------
 */

static pt_seen see(const pt_run *run)
{
    return (pt_seen){
        .marked = pt_mark_read(&run->mark),
        .awaited = pt_world_awaited(run->world),
        .put_off = pt_world_put_off(run->world),
    };
}

static void tell(const pt_watchdog *w)
{
    const pt_run *run = w->run;
    char where[256];
    pt_watchdog_describe(run, &w->seen, where, sizeof where);
    pt_log(PT_LOG_ERROR, "stalled for %.1f s, host %s, stage %d of %d: %s",
           (double)w->stood_ns / 1e9, pt_world_host(run->world), run->rank, run->stages, where);
}

static void count(pt_watchdog *w, const pt_seen *seen, int64_t passed_ns, int64_t limit)
{
    bool moved = seen->marked.moves != w->seen.marked.moves;
    bool slept = passed_ns > limit / 2;
    w->stood_ns = moved || slept ? 0 : w->stood_ns + passed_ns;
    w->resumed_ns = slept ? 3 * limit : w->resumed_ns - passed_ns;
}

/* For whoever watches from outside and knows of steps alone. */
static void show(pt_watchdog *w, int64_t passed_ns)
{
    w->shown_ns += passed_ns;
    if (w->stood_ns > 0 || w->shown_ns < SHOW_NS)
        return;
    pt_progress_touch(w->run->progress);
    w->shown_ns = 0;
}

/* True: no more to be seen. Where others have ended the run, a rank that stood no less and looks a
 * little later still says so, as it was seen before that; one that was stopped meanwhile does not.
 */
static bool look(pt_watchdog *w, int64_t passed_ns)
{
    pt_run *run = w->run;
    pt_seen seen = see(run);
    int64_t limit = pt_watchdog_limit_ns(run->stall_s, pt_mark_median_ns(&run->mark));
    bool ended = run->stop && *run->stop;
    count(w, &seen, passed_ns, limit);
    show(w, passed_ns);
    if (!ended)
        w->seen = seen;
    bool resumed = w->resumed_ns > 0;
    if (resumed)
        limit *= 2;
    if (w->stood_ns < limit && !ended)
        return false;
    if (!ended || (w->stood_ns >= limit / 2 && !resumed))
        tell(w);
    if (!ended)
        run->stalled();
    return true;
}

static int64_t nap_of(const pt_run *run)
{
    int64_t nap = pt_watchdog_limit_ns(run->stall_s, /*median_ns=*/1) / LOOKS_PER_LIMIT;
    return nap < LONGEST_NAP_NS ? nap : LONGEST_NAP_NS;
}

/* Returns with the mutex held; true: the run is over. */
static bool nap(pt_watchdog *w, int64_t ns)
{
    int64_t until = pt_clock_ns() + ns;
    struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    while (!w->ends && pt_clock_ns() < until)
        pthread_cond_timedwait(&w->ending, &w->mutex, &at);
    return w->ends;
}

static void *watch(void *context)
{
    pt_watchdog *w = context;
    int64_t ns = nap_of(w->run), last = pt_clock_ns();
    bool over = false;
    pthread_mutex_lock(&w->mutex);
    while (!over && !nap(w, ns)) {
        int64_t now = pt_clock_ns(), passed = now - last;
        last = now;
        over = look(w, passed);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------
 */

pt_status pt_watchdog_choose(pt_run *run, pt_error *err)
{
    const char *set = getenv(VARIABLE);
    if (!run->world || run->rank != 0)
        return PT_OK;
    if (run->settings->stall)
        return pt_config_stall("--stall", run->settings->stall, &run->stall_s, err);
    return pt_config_stall(VARIABLE, set && *set ? set : "off", &run->stall_s, err);
}

/* Signals are for the thread that works. */
static int begin(pt_watchdog *w)
{
    pthread_condattr_t monotonic;
    sigset_t all, before;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->ending, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&w->thread, NULL, watch, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

pt_status pt_watchdog_open(pt_run *run, pt_error *err)
{
    if (!run->world)
        return PT_OK;
    PT_TRY(pt_world_broadcast(run->world, PT_FOR_PARTITION, /*root=*/0, &run->stall_s,
                              sizeof run->stall_s, err));
    if (run->stall_s < 0)
        return PT_OK;
    pt_watchdog *w = calloc(1, sizeof *w);
    if (!w)
        return pt_fail(err, PT_ENOMEM, "no memory for a thread");
    w->run = run;
    int code = begin(w);
    if (code != 0) {
        free(w);
        return pt_fail(err, PT_EIO, "no thread for --stall: %s", strerror(code));
    }
    run->watchdog = w;
    return PT_OK;
}

void pt_watchdog_close(pt_watchdog *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    w->ends = true;
    pthread_cond_signal(&w->ending);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->ending);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}
