/* Where a rank is and how fast its steps are: written by the thread that works, read by one that
 * watches. Setting it is progress; what it says is whole when it has stood for a while, and only
 * then it is of interest. Setting costs a few stores: no lock, no clock. */
#ifndef PIPETRAIN_MARK_H
#define PIPETRAIN_MARK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/schedule.h"

enum { PT_MARK_STEPS = 32 }; /* whose times are kept */

/* All 0: nowhere yet. */
typedef struct pt_mark {
    atomic_llong moves;
    _Atomic(const pt_action *) action; /* NULL: none, but … */
    _Atomic(const char *) what;        /* … this, static text */
    atomic_llong step; /* of the action: of the epoch; of `what`: of the run, or 0 */
    atomic_int epoch, peer;
    atomic_bool training;
    int64_t since_ns;   /* the working thread's own: end of the last step */
    atomic_llong steps; /* that have ended */
    atomic_llong step_ns[PT_MARK_STEPS];
} pt_mark;

/* An action begins; it must outlive the mark's readers. NULL is fine for the mark: nobody looks. */
void pt_mark_action(pt_mark *mark, const pt_action *action, uint32_t epoch, bool training);
/* Something else does: "at the end of an epoch", "at the checkpoint of step" with a step (0: none).
 * `peer`: the rank that is waited for where no wait of the world's names one, or -1. */
void pt_mark_place(pt_mark *mark, const char *what, int64_t step, int peer);
/* Steps are timed from here … */
void pt_mark_steps_begin(pt_mark *mark);
/* … and one has ended. */
void pt_mark_step(pt_mark *mark);

/* What a reader finds. Two with the same `moves`: no progress between. */
typedef struct pt_marked {
    int64_t moves;
    const pt_action *action;
    const char *what; /* NULL with an action, or before anything was marked */
    int64_t step;
    int epoch, peer;
    bool training;
} pt_marked;

pt_marked pt_mark_read(const pt_mark *mark);
/* Median of the last steps' times, from end to end; 0: none has ended yet. */
int64_t pt_mark_median_ns(const pt_mark *mark);

#endif
