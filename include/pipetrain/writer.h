/* A thread that does one job at a time while training goes on. It makes no MPI calls and touches
 * nothing that the job's owner touches until the job is done. */
#ifndef PIPETRAIN_WRITER_H
#define PIPETRAIN_WRITER_H

#include <stdbool.h>

#include "pipetrain/status.h"

typedef struct pt_writer pt_writer;
typedef pt_status (*pt_writer_job)(void *context, pt_error *err);

pt_status pt_writer_new(pt_writer **ret_writer, pt_error *err);
void pt_writer_free(pt_writer *writer); /* waits for the job; NULL is fine */

/* While no job is under way. */
void pt_writer_start(pt_writer *writer, pt_writer_job job, void *context);
/* Never waits. True when no job is under way; then the last one's status and message are in
 * `ret_status` and `ret_err`. */
bool pt_writer_is_done(pt_writer *writer, pt_status *ret_status, pt_error *ret_err);

#endif
