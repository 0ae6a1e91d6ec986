/* Lowering: compute actions → compute actions and messages.
 *
 * A receive stands right before its consumer, so that the rank does everything it can before it
 * waits. A send stands right after its producer: a gradient leaves before BACKWARD_WEIGHT, and the
 * stage before works on it while this one computes its own weight gradient. */
#include <stdlib.h>

#include "internal.h"

static bool is_forward(const pt_action *action)
{
    return action->kind == PT_FORWARD || action->kind == PT_INFER;
}

static bool talks(const pt_action *action)
{
    return is_forward(action) || action->kind == PT_BACKWARD_INPUT;
}

/* Unless this end of the pipeline has no such message. */
static void add_message(pt_action_list *list, const pt_schedule_spec *spec, int rank,
                        const pt_action *compute, pt_action_kind kind)
{
    int peer = pt_schedule_peer(spec, rank, compute->chunk, kind);
    if (peer < 0)
        return;
    pt_action action = *compute;
    action.kind = (uint8_t)kind;
    action.staleness = 0;
    action.peer = peer;
    list->actions[list->n++] = action;
}

static pt_status lower_rank(const pt_action_list *from, const pt_schedule_spec *spec, int rank,
                            pt_action_list *to, pt_error *err)
{
    int talking = 0;
    for (int i = 0; i < from->n; i++)
        talking += talks(&from->actions[i]);
    PT_TRY(pt_action_list_reserve(to, from->n + 2 * talking, err));
    for (int i = 0; i < from->n; i++) {
        const pt_action *action = &from->actions[i];
        bool forward = is_forward(action);
        if (talks(action))
            add_message(to, spec, rank, action, forward ? PT_RECV_ACT : PT_RECV_GRAD);
        to->actions[to->n++] = *action;
        if (talks(action))
            add_message(to, spec, rank, action, forward ? PT_SEND_ACT : PT_SEND_GRAD);
    }
    return PT_OK;
}

pt_status pt_schedule_lower(pt_schedule *schedule, pt_error *err)
{
    if (schedule->lowered)
        return PT_OK;
    int stages = schedule->spec.stages;
    pt_action_list *ranks = calloc((size_t)stages, sizeof(*ranks));
    if (!ranks)
        return pt_fail(err, PT_ENOMEM, "no memory for the schedule of %d stages", stages);

    pt_status status = PT_OK;
    for (int rank = 0; rank < stages; rank++)
        PT_GOTO(status,
                lower_rank(&schedule->ranks[rank], &schedule->spec, rank, &ranks[rank], err));

    /* Swapped in as a whole: a failure leaves the schedule as it was. */
    pt_action_list *old = schedule->ranks;
    schedule->ranks = ranks;
    schedule->lowered = true;
    ranks = old;
out:
    for (int rank = 0; rank < stages; rank++)
        pt_action_list_clear(&ranks[rank]);
    free(ranks);
    return status;
}

int pt_schedule_slots(const pt_schedule_spec *spec)
{
    int least = spec->chunks > 1 && spec->stages > 4 ? (spec->stages + 1) / 2 : 2;
    return spec->in_flight < INT32_MAX - least ? least + spec->in_flight : INT32_MAX;
}
