/* Small faults for a schedule's lists, as rows of tables. */
#ifndef PIPETRAIN_TESTS_SCHEDULE_EDITS_H
#define PIPETRAIN_TESTS_SCHEDULE_EDITS_H

#include "pipetrain/schedule.h"

/* Of one action: it goes, comes twice, changes places, moves before the other, becomes another. */
typedef enum edit_kind { DROP, DOUBLE, SWAP, MOVE_BEFORE, SET } edit_kind;

typedef struct edit {
    edit_kind what;
    int rank;
    pt_action_kind kind; /* the action that is edited … */
    int micro_batch;
    pt_action_kind other_kind; /* … and, for SWAP and MOVE_BEFORE, the other one */
    int other_micro_batch;
    pt_action set; /* SET: what stands there instead */
} edit;

#define DROP_(rank_, kind_, m)                                                                     \
    {                                                                                              \
        .what = DROP, .rank = rank_, .kind = kind_, .micro_batch = m                               \
    }
#define DOUBLE_(rank_, kind_, m)                                                                   \
    {                                                                                              \
        .what = DOUBLE, .rank = rank_, .kind = kind_, .micro_batch = m                             \
    }
#define SWAP_(rank_, kind_, m, other, other_m)                                                     \
    {                                                                                              \
        .what = SWAP, .rank = rank_, .kind = kind_, .micro_batch = m, .other_kind = other,         \
        .other_micro_batch = other_m                                                               \
    }
#define MOVE_(rank_, kind_, m, other, other_m)                                                     \
    {                                                                                              \
        .what = MOVE_BEFORE, .rank = rank_, .kind = kind_, .micro_batch = m, .other_kind = other,  \
        .other_micro_batch = other_m                                                               \
    }
#define SET_(rank_, kind_, m, ...)                                                                 \
    {                                                                                              \
        .what = SET, .rank = rank_, .kind = kind_, .micro_batch = m, .set = { __VA_ARGS__, 0 }     \
    }

/* Fails the test where the list lacks an action that is named. */
void apply(const edit *e, pt_schedule *s);

#endif
