/* System calls on files that can be made to fail, or to be the process's last. Linked with --wrap
 * for each of them; nothing happens until faults_begin. */
#ifndef PIPETRAIN_TESTS_FILE_FAULTS_H
#define PIPETRAIN_TESTS_FILE_FAULTS_H

enum { FAULT_KILLED = 42 }; /* exit status of a process that was ended so */

typedef enum fault_kind {
    FAULT_KILL,      /* the process ends instead of the call */
    FAULT_KILL_HALF, /* … of a write, when half of it is done */
    FAULT_FAIL,      /* the call fails with the error; close() closes all the same */
    FAULT_FAIL_HALF, /* … a write when half of it is done; and all that follow */
    FAULT_KINDS
} fault_kind;

/* The at-th call from now, counted from 0. `error`: of errno. */
void faults_begin(fault_kind kind, int at, int error);
/* How many calls there were. */
int faults_end(void);

#endif
