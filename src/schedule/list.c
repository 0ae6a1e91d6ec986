/* Lists of actions, and the arithmetic of spans and steps. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

pt_status pt_action_list_reserve(pt_action_list *list, int n, pt_error *err)
{
    list->actions = calloc(n > 0 ? (size_t)n : 1, sizeof(*list->actions));
    list->n = 0;
    if (!list->actions)
        return pt_fail(err, PT_ENOMEM, "no memory for a schedule of %d actions", n);
    return PT_OK;
}

void pt_action_list_clear(pt_action_list *list)
{
    free(list->actions);
    *list = (pt_action_list){0};
}

pt_status pt_schedule_new(const pt_schedule_spec *spec, bool synchronous, pt_schedule **ret,
                          pt_error *err)
{
    pt_schedule *schedule = calloc(1, sizeof(*schedule));
    if (schedule)
        schedule->ranks = calloc((size_t)spec->stages, sizeof(*schedule->ranks));
    if (!schedule || !schedule->ranks) {
        free(schedule);
        return pt_fail(err, PT_ENOMEM, "no memory for the schedule of %d stages", spec->stages);
    }
    schedule->spec = *spec;
    schedule->synchronous = synchronous;
    *ret = schedule;
    return PT_OK;
}

void pt_schedule_free(pt_schedule *schedule)
{
    if (!schedule)
        return;
    for (int rank = 0; rank < schedule->spec.stages; rank++)
        pt_action_list_clear(&schedule->ranks[rank]);
    free(schedule->ranks);
    free(schedule);
}

int pt_schedule_steps(const pt_schedule_spec *spec)
{
    return (spec->micro_batches - 1) / spec->per_step + 1;
}

int pt_schedule_last_of(const pt_schedule_spec *spec, int step)
{
    int64_t last = ((int64_t)step + 1) * spec->per_step - 1;
    return last < spec->micro_batches ? (int)last : spec->micro_batches - 1;
}

bool pt_schedule_ends_step(const pt_schedule_spec *spec, int micro_batch)
{
    return micro_batch == pt_schedule_last_of(spec, micro_batch / spec->per_step);
}

bool pt_schedule_trains(const pt_schedule *schedule)
{
    return !schedule->infers;
}
