/* What a killed mpirun leaves on this machine: its session directory, and segments of shared
 * memory. */
#ifndef PIPETRAIN_LAUNCH_CLEAN_H
#define PIPETRAIN_LAUNCH_CLEAN_H

#include "pipetrain/status.h"

#define PT_SHARED_MEMORY "/dev/shm"

/* Removes the folder `session`, which was given to mpirun as its place for session directories, and
 * the segments in `shared_memory` of the jobs that had one there; nothing that belongs to another
 * user. All processes of these jobs must have ended. PT_EIO: what could not be removed. */
pt_status pt_clean(const char *session, const char *shared_memory, pt_error *err);

#endif
