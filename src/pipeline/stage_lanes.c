/* Who waits for whom when copies and compute run side by side.
 *
 *   memory          compute                    in                          out
 *   stash slot      reads, writes              unpack, load: writes        pack: reads
 *   sample, answer  reads                      writes
 *   scratch         reads, writes              unpack, load: writes        pack: reads
 *   held gradients  reads, writes              unpack: writes              pack: reads
 *
 * A lane keeps its own order, so only pairs of lanes that meet in one memory need events:
 *
 *   in before compute (it reads what came)     compute waits for the slot's `arrived`
 *   compute before out (it sends the result)   out waits for `asked`, recorded just before
 *   the slot's next user:
 *     compute before in                        in waits for the slot's `free`, recorded at its end
 *     out before in, and before compute        compute waits for `left` before `free` is recorded
 *   a block of held gradients' next user       the same, with a `free` of its own
 *   scratch, which all micro-batches share:
 *     compute before in                        in waits for `asked`: all compute so far. Lists
 *                                              unpack into scratch right before they compute with
 *                                              it, so no later compute comes in between
 *     out before compute, and before in        both wait for the `left` of the newest pack that
 *                                              read scratch; being newest it covers the others
 *
 * Weight gradients write no scratch, so a gradient leaves while they run. In evaluation all values
 * live in scratch: the last four lines hold them. An event that is recorded again before somebody's
 * older wait is over does no harm: a wait is for the recording that was last when it was asked, and
 * a later place on the same lane covers the earlier ones. No lane waits for a message, which only
 * the host can bring, so every event is reached in the end. */
#include <sched.h>

#include "stage_internal.h"

static pt_status wait_for(pt_stage *s, pt_lane lane, pt_event *event, pt_error *err)
{
    return s->plan.backend->row->event_wait(s->plan.backend, lane, event, err);
}

static pt_status record(pt_stage *s, pt_lane lane, pt_event *event, pt_error *err)
{
    return s->plan.backend->row->event_record(s->plan.backend, lane, event, err);
}

pt_status pt_stage_lanes_new(pt_stage *s, pt_error *err)
{
    pt_backend *b = s->plan.backend;
    PT_TRY(b->row->event_new(b, &s->asked, err));
    for (int i = 0; i < s->plan.slots; i++) {
        stage_slot *slot = &s->slots[i];
        PT_TRY(b->row->event_new(b, &slot->free, err));
        PT_TRY(b->row->event_new(b, &slot->sampled, err));
        PT_TRY(b->row->event_new(b, &slot->arrived, err));
        PT_TRY(b->row->event_new(b, &slot->left, err));
    }
    return PT_OK;
}

void pt_stage_lanes_free(pt_stage *s)
{
    pt_backend *b = s->plan.backend;
    for (int i = 0; s->slots && i < s->plan.slots; i++) {
        b->row->event_free(b, s->slots[i].free);
        b->row->event_free(b, s->slots[i].sampled);
        b->row->event_free(b, s->slots[i].arrived);
        b->row->event_free(b, s->slots[i].left);
    }
    b->row->event_free(b, s->asked);
}

bool pt_stage_in_scratch(const pt_stage *s, const void *dev)
{
    uintptr_t at = (uintptr_t)dev, begin = (uintptr_t)s->dev_scratch;
    return at >= begin && at - begin < s->scratch_bytes;
}

pt_status pt_stage_before_compute(pt_stage *s, stage_slot *slot, bool writes_scratch, pt_error *err)
{
    if (slot->arriving)
        PT_TRY(wait_for(s, PT_LANE_COMPUTE, slot->arrived, err));
    slot->arriving = false;
    if (!writes_scratch || !s->scratch_leaves)
        return PT_OK;
    PT_TRY(wait_for(s, PT_LANE_COMPUTE, s->scratch_leaves->left, err));
    s->scratch_leaves = NULL;
    return PT_OK;
}

pt_status pt_stage_before_in(pt_stage *s, bool into_scratch, pt_error *err)
{
    if (!into_scratch)
        return PT_OK;
    PT_TRY(record(s, PT_LANE_COMPUTE, s->asked, err));
    PT_TRY(wait_for(s, PT_LANE_IN, s->asked, err));
    return s->scratch_leaves ? wait_for(s, PT_LANE_IN, s->scratch_leaves->left, err) : PT_OK;
}

pt_status pt_stage_after_in(pt_stage *s, stage_slot *slot, pt_error *err)
{
    slot->arriving = true;
    return record(s, PT_LANE_IN, slot->arrived, err);
}

pt_status pt_stage_before_out(pt_stage *s, pt_error *err)
{
    PT_TRY(record(s, PT_LANE_COMPUTE, s->asked, err));
    return wait_for(s, PT_LANE_OUT, s->asked, err);
}

pt_status pt_stage_after_out(pt_stage *s, stage_slot *slot, bool from_scratch, pt_error *err)
{
    slot->leaving = true;
    if (from_scratch)
        s->scratch_leaves = slot;
    return record(s, PT_LANE_OUT, slot->left, err);
}

pt_status pt_stage_take(pt_stage *s, stage_slot *slot, const pt_between_ops *between, pt_error *err)
{
    PT_TRY(pt_event_await(s->plan.backend, slot->sampled, between, err));
    return wait_for(s, PT_LANE_IN, slot->free, err);
}

pt_status pt_stage_give_back(pt_stage *s, stage_slot *slot, pt_error *err)
{
    if (slot->leaving)
        PT_TRY(wait_for(s, PT_LANE_COMPUTE, slot->left, err));
    slot->leaving = false;
    return record(s, PT_LANE_COMPUTE, slot->free, err);
}

pt_status pt_event_await(pt_backend *b, pt_event *event, const pt_between_ops *between,
                         pt_error *err)
{
    for (;;) {
        bool done = false;
        PT_TRY(b->row->event_done(b, event, &done, err));
        if (done)
            return PT_OK;
        if (between)
            PT_TRY(between->call(between->context, err));
        if (b->row->pause)
            b->row->pause(b);
        else
            sched_yield();
    }
}
