/* The inside of a stage, shared by stage.c, stage_held.c, stage_lanes.c and
 * stage_messages.c. */
#ifndef PIPETRAIN_PIPELINE_STAGE_INTERNAL_H
#define PIPETRAIN_PIPELINE_STAGE_INTERNAL_H

#include "gap.h"
#include "pipetrain/stage.h"

typedef struct stage_slot {
    void *dev_stash;
    uint32_t *host_sample, *dev_sample; /* room for the largest micro-batch */
    void *dev_answer;                   /* labels or targets; last stage only */
    pt_event *free, *sampled, *arrived, *left;
    bool taken;
    bool arriving; /* compute has not been told to wait for `arrived` */
    bool leaving;  /* nor for `left` */
} stage_slot;

/* Gradients that a weight gradient will read when other micro-batches have computed. */
typedef struct held_block {
    void *dev;
    pt_event *free; /* compute, and what is copied out, is done with it */
    bool taken;
} held_block;

struct pt_stage {
    pt_stage_plan plan;
    pt_weights *weights;
    pt_program *programs[2 * PT_MAX_SIZES];
    int n_programs;
    stage_slot *slots;
    held_block *held;
    gap_meter gap;
    void *dev_scratch;
    size_t scratch_bytes;
    pt_event *asked;                    /* all that was asked of compute so far */
    const stage_slot *scratch_leaves;   /* its `left` covers what is copied out of scratch */
    pt_layout *plain[2 * PT_MAX_SIZES]; /* of the predictions, per program; last stage only */
    void *dev_plain;                    /* room for the largest */
};

/* Where a call on this micro-batch works. */
pt_program_run pt_stage_run(pt_stage *stage, const pt_micro_batch *mb);

/* ---- lanes: stage_lanes.c says who waits for whom, and why ------------------------------------
 */
pt_status pt_stage_lanes_new(pt_stage *stage, pt_error *err);
void pt_stage_lanes_free(pt_stage *stage); /* half-built is fine */

/* Before compute reads what has arrived for the slot, or overwrites scratch. */
pt_status pt_stage_before_compute(pt_stage *stage, stage_slot *slot, bool writes_scratch,
                                  pt_error *err);

/* Around copies into, or out of, a slot's stash, its small buffers, or scratch. */
pt_status pt_stage_before_in(pt_stage *stage, bool into_scratch, pt_error *err);
pt_status pt_stage_after_in(pt_stage *stage, stage_slot *slot, pt_error *err);
pt_status pt_stage_before_out(pt_stage *stage, pt_error *err);
pt_status pt_stage_after_out(pt_stage *stage, stage_slot *slot, bool from_scratch, pt_error *err);

/* At the beginning and the end of a micro-batch's stay in a slot. `take` waits until the slot's
 * pinned sample numbers may be overwritten. */
pt_status pt_stage_take(pt_stage *stage, stage_slot *slot, const pt_between_ops *between,
                        pt_error *err);
pt_status pt_stage_give_back(pt_stage *stage, stage_slot *slot, pt_error *err);
bool pt_stage_in_scratch(const pt_stage *stage, const void *dev);

/* ---- gradients that wait: stage_held.c
 * -----------------------------------------------------------
 */
pt_status pt_stage_held_new(pt_stage *stage, size_t bytes, pt_error *err);
void pt_stage_held_free(pt_stage *stage); /* half-built is fine */
/* Sees to it that the micro-batch, which is about to get its first gradient, has a block. */
pt_status pt_stage_hold(pt_stage *stage, pt_micro_batch *mb, pt_error *err);
/* Gives it back, after the micro-batch's slot: what is copied out of both has been waited for. */
pt_status pt_stage_let_go(pt_stage *stage, pt_micro_batch *mb, pt_error *err);

#endif
