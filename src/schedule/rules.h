/* What is known of one rank's list so far: shared by rules.c, which judges the next action, and
 * rules_state.c, which takes it in. */
#ifndef PT_SCHEDULE_RULES_H
#define PT_SCHEDULE_RULES_H

#include "internal.h"

/* What has been done with a micro-batch. */
enum { GOT_ACT = 1, RAN = 2, SENT_ACT = 4, GOT_GRAD = 8, INPUT = 16, SENT_GRAD = 32, WEIGHT = 64 };

/* What an action of a kind needs done before, and does. */
typedef struct progress {
    int sets, needs;
    bool training, inference; /* where it may stand */
    bool ordered;             /* must run in micro-batch order */
} progress;

extern const progress pt_progress[PT_ACTION_KINDS];

typedef struct micro_batch {
    int done;             /* bits of progress */
    int ran_at, input_at; /* index of the FORWARD or INFER and of the BACKWARD_INPUT */
    int version;          /* updates made before the FORWARD … */
    int backward_version; /* … and before the BACKWARD_INPUT */
} micro_batch;

/* A block of the rank. */
typedef struct chunk_state {
    bool is_last;    /* of the model */
    micro_batch *of; /* [micro_batches] */
    int next[PT_ACTION_KINDS];
    int *users; /* [steps + 1]: micro-batches in flight whose forward used a version */
    int stash, versions;
    int held;          /* micro-batches whose gradients of values are alive */
    bool mixed;        /* something else computed while they were */
    int64_t staleness; /* sum over forwards */
    pt_schedule_rank found;
} chunk_state;

typedef struct rank_state {
    const pt_schedule *schedule;
    const pt_schedule_spec *spec;
    int rank;
    bool training;
    chunk_state *chunks; /* [spec->chunks] */
    int updates, clips;  /* of all chunks alike */
    int stash, stash_peak;
    pt_flaw *flaw;
} rank_state;

/* The action at `index`, which obeys the rules. */
void pt_rank_state_apply(rank_state *state, int index, const pt_action *action);

#endif
