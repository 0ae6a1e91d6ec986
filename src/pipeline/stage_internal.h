/* The inside of a stage, shared by stage.c and stage_messages.c. */
#ifndef PIPETRAIN_PIPELINE_STAGE_INTERNAL_H
#define PIPETRAIN_PIPELINE_STAGE_INTERNAL_H

#include "pipetrain/stage.h"

typedef struct stage_slot {
    void *dev_stash;
    uint32_t *sample; /* room for the largest micro-batch */
    bool taken;
} stage_slot;

struct pt_stage {
    pt_stage_plan plan;
    pt_weights *weights;
    pt_program *programs[2 * PT_MAX_SIZES];
    int n_programs;
    stage_slot *slots;
    void *dev_scratch;
    pt_layout *plain[2 * PT_MAX_SIZES]; /* of the predictions, per program; last stage only */
    void *dev_plain;                    /* room for the largest */
};

/* Where a call on this micro-batch works. */
pt_program_run pt_stage_run(pt_stage *stage, const pt_micro_batch *mb);

#endif
