/* How long a job may make no progress. Pure: what was seen and when comes from outside. */
#ifndef PIPETRAIN_LAUNCH_PATIENCE_H
#define PIPETRAIN_LAUNCH_PATIENCE_H

#include "policy.h"
#include "progress.h"

typedef struct pt_patience {
    pt_stall stall;
    int64_t start_limit_ns; /* until the first sign; 0: for ever */
    int64_t changed_ns;     /* when the last sign was seen; at first: when the job was started */
    int64_t suspended_ns;   /* since when mpirun is stopped; 0: it is not */
    bool has_begun;         /* there was a sign */
    pt_progress last;       /* has_begun: the last one */
} pt_patience;

/* Takes in what the progress file says; NULL: there is none yet. */
void pt_patience_see(pt_patience *patience, const pt_progress *progress, int64_t now_ns);
/* Has it gone on for too long? Then *ret_cause says what. */
bool pt_patience_is_over(const pt_patience *patience, int64_t now_ns, pt_cause *ret_cause);

#endif
