/* How long a job may make no progress. Pure: what was seen and when comes from outside. */
#ifndef PIPETRAIN_LAUNCH_PATIENCE_H
#define PIPETRAIN_LAUNCH_PATIENCE_H

#include "policy.h"
#include "progress.h"

typedef struct pt_patience {
    pt_stall stall;
    int64_t start_limit_ns; /* until the first step has ended; 0: for ever */
    /* What was seen. */
    int64_t started_ns;   /* the job's start */
    int64_t suspended_ns; /* since when mpirun is stopped; 0: it is not */
    bool has_begun;       /* there was a sign: the last one, and when */
    pt_progress last;
    int64_t changed_ns;
    bool has_stepped; /* a step of this launch has ended */
} pt_patience;

/* As the job starts. */
void pt_patience_start(pt_patience *patience, int64_t now_ns);
/* Takes in what the progress file says; NULL: there is none yet. */
void pt_patience_see(pt_patience *patience, const pt_progress *progress, int64_t now_ns);
/* Has it gone on for too long? Then *ret_cause says what. */
bool pt_patience_is_over(const pt_patience *patience, int64_t now_ns, pt_cause *ret_cause);

#endif
