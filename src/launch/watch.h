/* From mpirun's start to its end: one loop that takes signals and looks at the progress. */
#ifndef PIPETRAIN_LAUNCH_WATCH_H
#define PIPETRAIN_LAUNCH_WATCH_H

#include "patience.h"
#include "process.h"

typedef struct pt_watch {
    int signals;          /* of pt_signals_open */
    const char *progress; /* the file */
    pt_wish *wish;        /* what signals make of it */
    pt_patience patience; /* as at the start */
    /* Told when training has begun. */
    void (*begins)(void *context, const pt_progress *now);
    void *context;
} pt_watch;

/* Returns when mpirun has ended, or must be ended: its patience is over, or the user wants it at
 * once. It is then for the caller to do that. Signals that have come by then are in the wish: what
 * ended mpirun may have been sent to the launcher as well. ret_ending: but for the step. */
void pt_watch_job(pt_watch *watch, const pt_process *mpirun, pt_ending *ret_ending);

/* Waits; shorter, if the user wants it to stop. */
void pt_watch_pause(const pt_watch *watch, double seconds);

#endif
