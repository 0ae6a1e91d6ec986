/* What follows from how a launch ended. Pure: no clock, no files, no processes. */
#ifndef PIPETRAIN_LAUNCH_POLICY_H
#define PIPETRAIN_LAUNCH_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum { PT_EXIT_DONE = 0, PT_EXIT_FAILED = 1, PT_EXIT_USAGE = 2 };
enum { PT_EXIT_STOPPED = 75, PT_EXIT_INTERRUPTED = 130 };

/* What the user has asked for since the launcher began. */
typedef enum pt_wish { PT_WISH_GO_ON, PT_WISH_STOP, PT_WISH_END_NOW } pt_wish;

typedef enum pt_cause {
    PT_CAUSE_ENDED,        /* mpirun ended by itself, or somebody else ended it */
    PT_CAUSE_STALLED,      /* no step for longer than the limit: the launcher ended it */
    PT_CAUSE_SUSPENDED,    /* mpirun itself was stopped (SIGSTOP) for as long */
    PT_CAUSE_SLOW_START,   /* no step was done when --start-limit was over */
    PT_CAUSE_NOT_BEGUN,    /* the user wants it to stop, and it does not train yet */
    PT_CAUSE_TOO_FEW_HOSTS /* nothing was started: fewer slots can be reached than --min */
} pt_cause;

typedef struct pt_ending {
    pt_cause cause;
    int code;       /* PT_CAUSE_ENDED: mpirun's exit code; 128 + n when signal n ended it */
    int64_t step;   /* the newest committed step by now; -1: there is none */
    bool has_begun; /* it trained, as far as the launcher saw */
    pt_wish wish;
} pt_ending;

/* What is remembered from launch to launch, and from launcher to launcher. */
typedef struct pt_record {
    int64_t step;     /* the newest committed step when the last failure was counted, or the last
                         launcher had done; -1: none */
    int64_t failures; /* since then */
} pt_record;

typedef struct pt_policy {
    int64_t restarts;     /* so many without a new committed step in between */
    double backoff_max_s; /* the longest wait before one */
} pt_policy;

typedef struct pt_verdict {
    bool restart;
    bool gave_up;   /* restarts are used up */
    int code;       /* !restart: what the launcher ends with */
    double delay_s; /* restart: after so long */
    pt_record record;
} pt_verdict;

/* Exit codes 0, 2 and 75 of the program are final. Every other end is a failure, also 130: whoever
 * wants a run to end tells the launcher, and a rank that gets SIGTERM is one of a host that shuts
 * down, say. The first failure behind a new step is followed by a restart at once, later ones wait
 * 1, 2, 4 … seconds. */
pt_verdict pt_policy_judge(const pt_policy *policy, const pt_record *record,
                           const pt_ending *ending);

/* "was ended by signal 9 (Killed)", "ended with exit code 1" …; returns `text`, cut to `size`
 * bytes. */
const char *pt_policy_describe(const pt_ending *ending, char *text, int size);

#endif
