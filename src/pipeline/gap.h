/* The gap: how far the weights that a forward read are from the true weights that its gradient is
 * applied to. Private to src/pipeline; stage.h says what is found.
 *
 *   forward of m    copies what it reads
 *   backward of m   ‖copy - θ‖ and ‖θ‖, θ as it is then: no update comes between a backward and
 *                   the one of its step
 *
 * One micro-batch is measured at a time, so that one copy is enough; one that is due meanwhile
 * gives way to the first behind it that finds the copy free. */
#ifndef PIPETRAIN_PIPELINE_GAP_H
#define PIPETRAIN_PIPELINE_GAP_H

#include "pipetrain/stage.h"

typedef struct gap_meter {
    pt_backend *backend;
    size_t elements;   /* of a flat buffer … */
    int64_t weights;   /* … and how many of them are weights; the rest is padding, and 0 */
    int64_t every;     /* 0: nothing is measured */
    int64_t due_in;    /* forwards until the next one; 0: it only waits for the copy */
    int slot;          /* of the micro-batch that is measured; -1: none */
    float *read, *off; /* what its forward read; room for the difference */
    pt_gap_found found;
} gap_meter;

/* What its buffers take. */
size_t pt_gap_bytes(const pt_stage_plan *plan);
pt_status pt_gap_new(gap_meter *meter, const pt_stage_plan *plan, pt_error *err);
void pt_gap_free(gap_meter *meter); /* half-built is fine */
void pt_gap_restart(gap_meter *meter);

/* A training forward is about to read mb->weights; a backward is about to run. On the compute lane;
 * the end of a measurement waits for the device, which one in many micro-batches can bear. */
pt_status pt_gap_forward(gap_meter *meter, const pt_micro_batch *mb, pt_error *err);
pt_status pt_gap_backward(gap_meter *meter, const pt_micro_batch *mb, const float *dev_theta,
                          pt_error *err);

#endif
