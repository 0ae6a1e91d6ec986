/* --stall: a thread that looks whether this rank gets on, and says where it stands when it does
 * not.
 *
 * It only reads the rank's mark and makes no MPI calls: each rank knows no more than its own part,
 * and the lines of all of them together say who is to blame. Whoever waits names whom it waits for;
 * the rank that nobody's line excuses is the one that has no line, or one without a wait.
 *
 * A nap of the thread that takes far longer than asked is a stop of the whole process, whose time
 * does not count. Private to src/run. */
#ifndef PIPETRAIN_RUN_WATCHDOG_H
#define PIPETRAIN_RUN_WATCHDOG_H

#include "pipetrain/run.h"

/* Phases of opening. Rank 0 finds the limit, in the settings or the environment; PT_EINPUT. */
pt_status pt_watchdog_choose(pt_run *run, pt_error *err);
/* Collective: it holds for all, and the threads begin to look. Nothing where it is off. */
pt_status pt_watchdog_open(pt_run *run, pt_error *err);
void pt_watchdog_close(pt_watchdog *watchdog); /* NULL is fine */

/* A look at a rank: what it is at, and as pt_world_awaited and pt_world_put_off say. */
typedef struct pt_seen {
    pt_marked marked;
    int awaited, put_off;
} pt_seen;

/* "waits for activations of micro-batch 17 (step 12) from rank 1". Safe in any thread. */
void pt_watchdog_describe(const pt_run *run, const pt_seen *seen, char *text, size_t size);

#endif
