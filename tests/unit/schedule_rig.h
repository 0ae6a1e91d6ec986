/* Schedules for tests; pt_schedule_free() them. */
#ifndef PIPETRAIN_TESTS_SCHEDULE_RIG_H
#define PIPETRAIN_TESTS_SCHEDULE_RIG_H

#include "pipetrain/schedule.h"
#include "suite.h"

static inline pt_schedule *lowered(pt_schedule *schedule)
{
    static pt_error err;
    assert_ok(pt_schedule_lower(schedule, &err), &err);
    return schedule;
}

static inline pt_schedule *make(pt_schedule_spec spec)
{
    static pt_error err;
    pt_schedule *schedule = NULL;
    assert_ok(pt_schedule_generate(&spec, &schedule, &err), &err);
    return lowered(schedule);
}

static inline pt_schedule_spec interleaved(int stages, int n, int per_step, int chunks)
{
    return (pt_schedule_spec){"interleaved", stages, n, per_step, 0, false, chunks};
}

#endif
