#include "watchdog.h"

#include <stdlib.h>

#include "pipetrain/log.h"
#include "pipetrain/ticker.h"
#include "progress.h"

/* A look costs a microsecond; between them a rank can stand unnoticed. */
static const int64_t LONGEST_NAP_NS = 50000000;
enum { LOOKS_PER_LIMIT = 10 };

static const int64_t SHOW_NS = 250000000; /* between touches of the progress file, at the least */

struct pt_watchdog {
    pt_run *run;
    pt_ticker *ticker;
    pt_seen seen;       /* at the last look … */
    int64_t stood_ns;   /* … and for how long it has been at the same */
    int64_t shown_ns;   /* since the progress file was touched */
    int64_t resumed_ns; /* above 0: the process was stopped lately, others may still be, or be
                           ended: twice the limit */
};

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
static bool look(void *context, int64_t passed_ns)
{
    pt_watchdog *w = context;
    pt_run *run = w->run;
    pt_seen seen = see(run);
    int64_t limit = pt_config_stall_ns(run->stall_s, pt_mark_median_ns(&run->mark));
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
    int64_t nap = pt_config_stall_ns(run->stall_s, /*median_ns=*/1) / LOOKS_PER_LIMIT;
    return nap < LONGEST_NAP_NS ? nap : LONGEST_NAP_NS;
}

/* ---- life -------------------------------------------------------------------------------------
 */

pt_status pt_watchdog_choose(pt_run *run, pt_error *err)
{
    if (!run->world || run->rank != 0)
        return PT_OK;
    return pt_config_find_stall(run->settings, &run->stall_s, err);
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
    pt_status status = pt_ticker_new(nap_of(run), look, w, &w->ticker, err);
    if (status != PT_OK) {
        free(w);
        return pt_fail_within(err, "--stall");
    }
    run->watchdog = w;
    return PT_OK;
}

void pt_watchdog_close(pt_watchdog *w)
{
    if (!w)
        return;
    pt_ticker_free(w->ticker);
    free(w);
}
