/* Blocks for gradients that wait: what a micro-batch's weight gradients will read, kept from its
 * first gradient until they have run, while other micro-batches use scratch. Who waits for whom on
 * the lanes is said in stage_lanes.c. */
#include <stdlib.h>

#include "stage_internal.h"

pt_status pt_stage_held_new(pt_stage *s, size_t bytes, pt_error *err)
{
    pt_backend *b = s->plan.backend;
    if (s->plan.held == 0)
        return PT_OK;
    s->held = calloc((size_t)s->plan.held, sizeof *s->held);
    if (!s->held)
        return pt_fail(err, PT_ENOMEM, "no memory for %d blocks of gradients", s->plan.held);
    for (int i = 0; i < s->plan.held; i++) {
        PT_TRY(b->row->dev_new(b, bytes, &s->held[i].dev, err));
        PT_TRY(b->row->event_new(b, &s->held[i].free, err));
    }
    return PT_OK;
}

void pt_stage_held_free(pt_stage *s)
{
    pt_backend *b = s->plan.backend;
    for (int i = 0; s->held && i < s->plan.held; i++) {
        b->row->dev_free(b, s->held[i].dev);
        b->row->event_free(b, s->held[i].free);
    }
    free(s->held);
}

pt_status pt_stage_hold(pt_stage *s, pt_micro_batch *mb, pt_error *err)
{
    pt_backend *b = s->plan.backend;
    int i = 0;
    if (s->plan.held == 0 || mb->held >= 0)
        return PT_OK;
    while (i < s->plan.held && s->held[i].taken)
        i++;
    if (i == s->plan.held)
        return pt_fail(err, PT_EINTERNAL, "all %d blocks of gradients are taken", s->plan.held);
    PT_TRY(b->row->event_wait(b, PT_LANE_IN, s->held[i].free, err));
    s->held[i].taken = true;
    mb->held = i;
    return PT_OK;
}

pt_status pt_stage_let_go(pt_stage *s, pt_micro_batch *mb, pt_error *err)
{
    pt_backend *b = s->plan.backend;
    if (mb->held < 0)
        return PT_OK;
    held_block *block = &s->held[mb->held];
    block->taken = false;
    mb->held = -1;
    return b->row->event_record(b, PT_LANE_COMPUTE, block->free, err);
}
