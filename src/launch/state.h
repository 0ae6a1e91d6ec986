/* What a launcher writes down, so that another one can go on where it was killed.
 *
 *   STATE/lock         held while a launcher lives
 *   STATE/state.json   what it has started, and what it remembers of earlier failures
 *   STATE/progress     written by rank 0 (progress.h)
 *
 * Whatever may have to be found again is written before it is made. */
#ifndef PIPETRAIN_LAUNCH_STATE_H
#define PIPETRAIN_LAUNCH_STATE_H

#include "pipetrain/status.h"
#include "pipetrain/store.h"
#include "policy.h"
#include "process.h"

enum { PT_STATE_TEXT = 512, PT_MARK_TEXT = 64 };

typedef struct pt_state {
    char host[PT_STATE_TEXT];    /* where the launcher runs: pids mean nothing elsewhere */
    pt_process launcher;         /* {0, 0}: it has ended in an orderly way */
    pt_process mpirun;           /* {0, 0}: none, or not known yet */
    char mark[PT_MARK_TEXT];     /* of all processes that it started; "": none */
    char session[PT_STATE_TEXT]; /* the folder of mpirun's session directories; "": none */
    int64_t starts;              /* of mpirun, by all launchers of this state; only grows */
    pt_record record;
    /* Of the launch that trains now; written for whoever looks, and not read. */
    int64_t launch; /* its number; 0: none does */
    pt_store_hosts hosts;
} pt_state;

/* Reads STATE/state.json. A missing file is an empty state, with record.step = -1. PT_EINPUT: it is
 * not what a launcher wrote. */
pt_status pt_state_read(const char *folder, pt_state *ret_state, pt_error *err);
/* Replaces it, whole or not at all. */
pt_status pt_state_write(const char *folder, const pt_state *state, pt_error *err);

/* Makes the folder and takes its lock. ret_lock: close() it to give the lock back; it ends with the
 * process, too. PT_EINPUT: another launcher has it, and which one. */
pt_status pt_state_lock(const char *folder, int *ret_lock, pt_error *err);

#endif
