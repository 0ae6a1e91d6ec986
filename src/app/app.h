/* What the files of src/app share: the one floor that talks to the user and ends the process. */
#ifndef PIPETRAIN_APP_APP_H
#define PIPETRAIN_APP_APP_H

#include "pipetrain/partition.h"
#include "pipetrain/settings.h"
#include "pipetrain/status.h"
#include "pipetrain/world.h"

/* SIGINT and SIGTERM set this flag; every wait and every pause between ops looks at it. A second
 * signal, or a second without anyone looking, ends the process. */
const volatile int *pt_app_stop_flag(void);
void pt_app_catch_signals(void);
/* SIGUSR1 sets this flag: take a checkpoint, then end. To be caught before anything else: nobody
 * should lose a run by asking early. */
const volatile int *pt_app_halt_flag(void);
void pt_app_catch_halt(void);
/* This run keeps nothing to go on from: the signal, if it came or comes, is a warning. */
void pt_app_ignore_halt(void);
/* Another thread has told that this rank stalls: ends the process a moment later, when the others
 * have told it of themselves. They cannot be asked, and mpirun ends whoever is left. */
void pt_app_stalled(void);
/* --stall where MPI itself waits for all ranks: where that takes longer than a first step may, and
 * longer than 10 s, a thread says so (`where`: "is …", static text) and ends this process. What a
 * partition file says of --stall is not known while MPI starts. NULL, which is fine: nobody asked,
 * pipetrain-launch sees to it, or no thread is to be had. */
typedef struct pt_app_guard pt_app_guard;
pt_app_guard *pt_app_guard_begin(const pt_settings *settings, const char *where);
void pt_app_guard_end(pt_app_guard *guard);

/* The reason has been told. The ranks that are gone make mpirun end this one too, and where closing
 * takes longer than SIGALRM waits, "interrupted" would be a second reason. */
void pt_app_has_spoken(void);

/* After a signal: says where it came (rank 0) and leaves, without waiting for anybody; every rank
 * has had a signal of its own. After another rank's failure: leaves without a word. */
_Noreturn void pt_app_leave(pt_world *world, const char *where);

/* --debug: if this rank is on the list, says how to attach and waits to be released. */
pt_status pt_app_wait_for_debugger(const pt_world *world, const char *ranks, pt_error *err);

/* Reads the partition file on rank 0 and gives it to all; parses it everywhere. ret_text (rank 0)
 * is the file's text. */
pt_status pt_app_read_partition(pt_world *world, const char *path, pt_partition **ret_partition,
                                char **ret_text, pt_error *err);

/* Reads the lists of --schedule FILE.csv, where there are any, likewise. */
pt_status pt_app_read_lists(pt_world *world, pt_config *config, pt_error *err);

/* The partition file used when none is named: beside the program, or where it was built. free() it.
 */
char *pt_app_default_partition(void);

/* The commands. Each returns a status that all ranks share, or ends all ranks itself. */
pt_status pt_app_train(pt_world *world, const pt_config *config, const pt_partition *partition,
                       const char *text, pt_error *err);
pt_status pt_app_infer(pt_world *world, const pt_config *config, const pt_partition *partition,
                       const char *text, pt_error *err);
pt_status pt_app_check(pt_world *world, const pt_config *config, const pt_partition *partition,
                       const char *text, pt_error *err);
pt_status pt_app_check_gradients(pt_world *world, const pt_config *config,
                                 const pt_partition *partition, const char *text, pt_error *err);

#endif
