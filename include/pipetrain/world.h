/* The ranks of a run and what they say to all. <mpi.h> is known to src/comm alone; with
 * -Dmpi=disabled the same functions serve a world of one rank.
 *
 * One communicator per purpose: a broadcast of one kind can never match, or wait behind, another's.
 * Every wait polls, looks at the stop flag, and sleeps when it lasts (ranks may outnumber cores).
 */
#ifndef PIPETRAIN_WORLD_H
#define PIPETRAIN_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipetrain/status.h"

typedef struct pt_world pt_world;

/* What a communicator is for. */
typedef enum pt_purpose {
    PT_FOR_PARTITION,  /* broadcast: partition text and options */
    PT_FOR_STATUS,     /* reduced: has any rank failed? and its message */
    PT_FOR_CLIP,       /* gathered and broadcast: norm parts, clip scale */
    PT_FOR_STOP,       /* one to all: this rank ends the run, having said why */
    PT_FOR_METRICS,    /* many to rank 0: step records, timings */
    PT_FOR_CHECKPOINT, /* broadcast: does a checkpoint follow this step? */
    PT_FOR_ANSWERS,    /* last stage to rank 0: predictions of --infer and evaluation */
    PT_PURPOSES
} pt_purpose;

/* Starts MPI (MPI_THREAD_FUNNELED) and makes every communicator. PT_ECOMM. */
pt_status pt_world_open(int *argc, char ***argv, pt_world **ret_world, pt_error *err);
/* Ends MPI in an orderly way; all ranks must call it, and it waits for them. After a failure, or
 * once the stop flag is set, it waits a second at most and leaves MPI open if another rank has not
 * come: the launcher then ends the run when this process ends, so end with a code other than 0.
 * NULL is fine. Links and mail are closed before. */
void pt_world_close(pt_world *world);
/* Ends every rank of the run: tells the others, who come out of their next wait with
 * PT_EINTERRUPTED and should end too, and ends this one with the exit code, which becomes the
 * launcher's. A rank that does not wait is left to the launcher: Open MPI's mpirun sends SIGTERM
 * after its odls_base_sigkill_timeout (1 s by default), and SIGKILL after another. Flushes stdio.
 */
_Noreturn void pt_world_abort(pt_world *world, int exit_code);
/* Has another rank called pt_world_abort? It has said why. */
bool pt_world_is_aborting(const pt_world *world);

/* Before pt_world_open: this process's rank, as far as its launcher tells; -1: none does. */
int pt_world_likely_rank(void);
/* Before pt_world_open: is this the process that should speak about a bad command line? */
bool pt_world_is_first_process(void);
/* Before pt_world_open: this process's number on its host, as far as its launcher tells; else 0. */
int pt_world_likely_local_rank(void);

int pt_world_rank(const pt_world *world);
int pt_world_size(const pt_world *world);
int pt_world_local_rank(const pt_world *world); /* among the ranks on this host */
const char *pt_world_host(const pt_world *world);
bool pt_world_under_mpirun(const pt_world *world);
/* Does this MPI say that messages may lie in a GPU's memory? A build, or a machine, may break the
 * promise: try one before relying on it. */
bool pt_world_knows_devices(void);
/* One line: "Open MPI 4.1.4" or "single rank (built without MPI)". */
void pt_world_describe(const pt_world *world, char *text, size_t size);

/* The flag that every wait watches; set by a signal handler. NULL: never stop. A wait that sees it
 * set, or hears that another rank is aborting, returns PT_EINTERRUPTED. */
void pt_world_watch(pt_world *world, const volatile int *stop);

/* For another thread, which may ask these two and nothing else that would speak to MPI: the rank
 * that the wait now under way is for, or -1; and the messages that are made, or read, and wait for
 * this rank's own device before they can go on. */
int pt_world_awaited(const pt_world *world);
int pt_world_put_off(const pt_world *world);

/* What waits do between two looks instead of spinning, yielding and sleeping as they see fit: a
 * millisecond at most. NULL: that again. */
void pt_world_pause_by(pt_world *world, void (*pause)(void *context), void *context);

/* Collectives: all ranks call them in the same order for each purpose, but the same moment matters
 * only where data must come: a root does not wait for ranks that are late for a short message.
 * PT_ECOMM when the ranks disagree on a length. A purpose whose call has failed stays out of step:
 * end the run. */
pt_status pt_world_broadcast(pt_world *world, pt_purpose purpose, int root, void *data,
                             size_t bytes, pt_error *err);
/* `bytes` may differ from rank to rank; ret_data (root only) has room for their sum, in rank order,
 * and counts[r] (root only, else NULL) says how many rank r gave. */
pt_status pt_world_gather(pt_world *world, pt_purpose purpose, int root, const void *data,
                          size_t bytes, const size_t *counts, void *ret_data, pt_error *err);
pt_status pt_world_barrier(pt_world *world, pt_purpose purpose, pt_error *err);

/* All ranks bring their status and message; all leave with those of the lowest rank that failed (or
 * PT_OK). ret_rank, if not NULL, is that rank or -1. */
pt_status pt_world_agree(pt_world *world, pt_status mine, pt_error *err, int *ret_rank);

/* Differences between this rank's pt_clock_ns and rank 0's, by ping-pong (for --trace). */
pt_status pt_world_clock_offset(pt_world *world, int64_t *ret_ns, pt_error *err);

/* ---- mail: small fixed-size records to rank 0 that never make the sender wait -------------------
 * A sender has a few slots; when all are under way pt_mail_post returns false and the caller keeps
 * adding up. Rank 0 takes what has arrived. */
typedef struct pt_mail pt_mail;

pt_status pt_mail_open(pt_world *world, size_t record_bytes, pt_mail **ret_mail, pt_error *err);
void pt_mail_close(pt_mail *mail);
/* Any rank but 0. */
bool pt_mail_post(pt_mail *mail, const void *record);
/* Rank 0: copies one record that has arrived and names its sender; false when there is none. */
bool pt_mail_take(pt_mail *mail, void *ret_record, int *ret_sender);
/* Any rank but 0: waits until everything posted has left, which needs nothing of rank 0 if it had
 * taken all before. To end: each sender posts a record that says it is the last and flushes; rank 0
 * takes until it has one of these from each. */
pt_status pt_mail_flush(pt_mail *mail, pt_error *err);

#endif
