/* Threads beside the one that works. */
#ifndef PIPETRAIN_THREAD_H
#define PIPETRAIN_THREAD_H

#include <pthread.h>

#include "pipetrain/status.h"

/* Begins a thread in which `run` gets `context`; to be joined. It takes no signals: these are for
 * the thread that works and speaks with MPI, and their handlers leave the program. PT_EIO: there is
 * no thread. */
pt_status pt_thread_start(void *(*run)(void *context), void *context, pthread_t *ret_thread,
                          pt_error *err);

#endif
