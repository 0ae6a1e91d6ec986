/* MPI_Init and MPI_Finalize wait for all ranks, and for mpirun, without a word and without an end.
 * The run's own watchdog (src/run/watchdog.c) lives between the two: it knows the run. */
#include <stdlib.h>
#include <unistd.h>

#include "app.h"
#include "pipetrain/log.h"
#include "pipetrain/ticker.h"

struct pt_app_guard {
    const char *where;
    int64_t limit_ns, stood_ns;
    pt_ticker *ticker;
};

enum { LOOKS_PER_LIMIT = 20 };

static const char LAUNCHER[] = "PIPETRAIN_LAUNCHER"; /* it watches from outside */

/* Both may take a while on a machine with too much to do, and pt_world_close gives mpirun some
 * seconds. */
static const int64_t LEAST_NS = 10000000000;

/* A look that comes far too late: the process was stopped, and that time does not count. */
static bool look(void *context, int64_t passed_ns)
{
    pt_app_guard *g = context;
    char host[64] = "";
    g->stood_ns = passed_ns > g->limit_ns / 2 ? 0 : g->stood_ns + passed_ns;
    if (g->stood_ns < g->limit_ns)
        return false;
    gethostname(host, sizeof host - 1);
    pt_log(PT_LOG_ERROR, "stalled for %.1f s, host %s: %s", (double)g->stood_ns / 1e9, host,
           g->where);
    pt_app_stalled();
    return true;
}

pt_app_guard *pt_app_guard_begin(const pt_settings *settings, const char *where)
{
    double seconds = -1;
    pt_error later = {PT_OK, ""}; /* whoever begins the run's watchdog says so */
    if (getenv(LAUNCHER)) /* which knows how long a cluster may take to start: --start-limit */
        return NULL;
    if (pt_config_find_stall(settings, &seconds, &later) != PT_OK || seconds < 0)
        return NULL;
    pt_app_guard *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->where = where;
    int64_t limit = pt_config_stall_ns(seconds, /*median_ns=*/0);
    g->limit_ns = limit > LEAST_NS ? limit : LEAST_NS;
    if (pt_ticker_new(g->limit_ns / LOOKS_PER_LIMIT, look, g, &g->ticker, &later) == PT_OK)
        return g;
    free(g);
    return NULL;
}

void pt_app_guard_end(pt_app_guard *g)
{
    if (!g)
        return;
    pt_ticker_free(g->ticker);
    free(g);
}
