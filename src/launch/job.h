/* mpirun: what it is told, how it is started and ended. */
#ifndef PIPETRAIN_LAUNCH_JOB_H
#define PIPETRAIN_LAUNCH_JOB_H

#include "hosts.h"
#include "pipetrain/status.h"
#include "process.h"

typedef struct pt_job {
    const char *mpirun;    /* its name or path */
    const char *session;   /* a folder for its session directories, which is made */
    const char *mark;      /* value of PT_MARK */
    const char *stall;     /* of PIPETRAIN_STALL */
    const char *progress;  /* of PIPETRAIN_PROGRESS: an absolute path */
    const pt_hosts *hosts; /* n = 0: mpirun finds them by itself */
    char *const *words;    /* the user's own options, the program and its options; ends with NULL */
} pt_job;

/* The whole command line, ended by NULL; pt_job_free_command it. PT_ENOMEM. */
pt_status pt_job_command(const pt_job *job, char ***ret_words, pt_error *err);
void pt_job_free_command(char **words);

/* Starts it in a session of its own, so that a terminal's Ctrl-C reaches the launcher alone, with
 * nothing to read. PT_EINPUT: there is no such program. */
pt_status pt_job_start(const pt_job *job, pt_process *ret_mpirun, pt_error *err);

/* Asks mpirun to end, which has ranks on other hosts end too, and kills what is left of the mark on
 * this one. `mpirun` may be {0, 0}, or gone. PT_EIO: something does not die. */
pt_status pt_job_end(const pt_process *mpirun, const char *mark, pt_error *err);

#endif
