/* A command of the user's, run beside an MPI program with threads. Private to src/store. */
#ifndef PIPETRAIN_STORE_COMMAND_H
#define PIPETRAIN_STORE_COMMAND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/status.h"

/* Runs `command FOLDER` by sh and waits; a command that says $1 itself gets the folder there alone.
 * PIPETRAIN_STEP and PIPETRAIN_LAUNCH are in its environment, its input is empty, and what it says
 * goes to stderr. PT_EIO: it could not be started, or how it ended. *stop: ends it, soon. */
pt_status pt_command_run(const char *command, const char *folder, int64_t step, int64_t launch,
                         const atomic_bool *stop, pt_error *err);

#endif
