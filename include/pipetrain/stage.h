/* One rank's stage at work: its programs (one per micro-batch size and mode), its stash slots and
 * its weights. A micro-batch takes a slot when it comes and gives it back when it goes; in between
 * the pt_micro_batch is its passport. Nothing is allocated after pt_stage_new. No MPI is known
 * here: messages are packed into, and unpacked from, buffers that the caller brings.
 *
 * Calls ask the backend's lanes and return. Memory that a call was given (input, answer, message,
 * result) is from host_new and belongs to the lanes until an event is reached that was recorded
 * behind the call: on the in lane for inputs, unpacked messages and answers, on the out lane for
 * packed messages, on the compute lane for the result. */
#ifndef PIPETRAIN_STAGE_H
#define PIPETRAIN_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/graph.h"
#include "pipetrain/program.h"
#include "pipetrain/status.h"
#include "pipetrain/weights.h"

typedef struct pt_stage pt_stage;

enum { PT_MAX_SIZES = 4 };

typedef struct pt_stage_plan {
    pt_backend *backend;
    const pt_graph *graph;
    const pt_stage_spec *spec;
    const pt_flat *flat;
    int64_t train_sizes[PT_MAX_SIZES]; /* micro-batch sizes that will come, samples */
    int n_train_sizes;
    int64_t eval_sizes[PT_MAX_SIZES];
    int n_eval_sizes;
    int slots;             /* micro-batches in flight at most (from the checker); >= 1 */
    int held;              /* whose weight gradients wait at most, while others compute (from the
                              checker's held_peak) */
    const bool *recompute; /* [node of the graph]: see program.h; NULL: none */
    int device_link_slots; /* of each link, if they are device memory; 0: host memory. Counted
                              among the predicted bytes; the engine allocates them */
    uint64_t seed;         /* dropout */
    int64_t
        gap_every; /* every so many training forwards one is measured, see pt_gap_found; 0: none */
} pt_stage_plan;

/* How far the weights that forwards read were from the true ones that their gradients were applied
 * to: sums over the micro-batches that were measured. */
typedef struct pt_gap_found {
    int64_t measured;
    double rms;      /* √(mean over the stage's weights of (θ_fwd - θ)²) */
    double relative; /* the same, divided by √(mean of θ²) */
} pt_gap_found;

/* A micro-batch on this stage. Pure data. */
typedef struct pt_micro_batch {
    pt_program *program;
    int slot;
    int held; /* its block of gradients that wait; -1: none yet, or none needed */
    int64_t samples;
    uint32_t epoch;
    const uint32_t *sample; /* who they are; the slot's own copy, on the host */
    pt_weight_set weights;  /* of its forward */
} pt_micro_batch;

/* What a stage with this plan takes: made by planning only, nothing is built or allocated. Used by
 * --check and for `predicted_bytes`. */
typedef struct pt_stage_bytes {
    size_t own;
    size_t shared; /* temporaries that all stages on a backend share: the largest of them counts */
} pt_stage_bytes;
pt_status pt_stage_predict_bytes(const pt_stage_plan *plan, const pt_weights_spec *weights,
                                 pt_stage_bytes *ret_bytes, pt_error *err);

/* `weights` is borrowed. */
pt_status pt_stage_new(const pt_stage_plan *plan, pt_weights *weights, pt_stage **ret_stage,
                       pt_error *err);
void pt_stage_free(pt_stage *stage); /* NULL is fine */

/* Since the last restart, at which no micro-batch may be here; the first one that is measured then
 * is number gap_every. */
pt_gap_found pt_stage_gap(const pt_stage *stage);
void pt_stage_gap_restart(pt_stage *stage);

pt_weights *pt_stage_weights(pt_stage *stage);
const pt_flat *pt_stage_flat(const pt_stage *stage);
/* Ops that the backward of the largest micro-batch runs again. */
int pt_stage_ops_again(const pt_stage *stage);

/* Longest message over the cut before (`behind` false) or behind (true) this stage, bytes. */
size_t pt_stage_message_bytes(const pt_stage *stage, bool behind);
/* Length of the messages of one micro-batch. Activations and gradients of a cut differ in length
 * when the model's input crosses it: it has no gradient. */
size_t pt_stage_activation_bytes(const pt_micro_batch *mb, bool behind);
size_t pt_stage_gradient_bytes(const pt_micro_batch *mb, bool behind);

/* Called between ops (see pt_program_run) and while waiting for a device. */
typedef struct pt_between_ops {
    pt_status (*call)(void *context, pt_error *err);
    void *context;
} pt_between_ops;

/* Waits until the event is reached. `between` may be NULL. */
pt_status pt_event_await(pt_backend *backend, pt_event *event, const pt_between_ops *between,
                         pt_error *err);

/* Takes a slot. PT_EINTERNAL when none is free or the size was not planned for. Waits while a
 * device has not come to the samples of the slot's last user. With gradients that wait, a block for
 * them is taken at the first of unpack_gradients, loss and backward_input (PT_EINTERNAL when none
 * is free). pt_stage_end gives both back. */
pt_status pt_stage_begin(pt_stage *stage, pt_mode mode, uint32_t epoch, const uint32_t *sample,
                         int64_t samples, const pt_between_ops *between, pt_micro_batch *ret_mb,
                         pt_error *err);
pt_status pt_stage_end(pt_stage *stage, pt_micro_batch *mb, pt_error *err);

/* Makes the compute lane wait for whatever the next forward, loss or backward of this micro-batch
 * must wait for. They do so themselves; a time that is taken after this call is of compute alone.
 */
pt_status pt_stage_line_up(pt_stage *stage, pt_micro_batch *mb, pt_error *err);

/* First stage: the model's input, plain (samples, shape). */
pt_status pt_stage_load(pt_stage *stage, pt_micro_batch *mb, const float *input, pt_error *err);

pt_status pt_stage_unpack_activations(pt_stage *stage, pt_micro_batch *mb, const void *message,
                                      pt_error *err);
pt_status pt_stage_pack_activations(pt_stage *stage, const pt_micro_batch *mb, void *message,
                                    pt_error *err);
pt_status pt_stage_unpack_gradients(pt_stage *stage, pt_micro_batch *mb, const void *message,
                                    pt_error *err);
pt_status pt_stage_pack_gradients(pt_stage *stage, const pt_micro_batch *mb, void *message,
                                  pt_error *err);

/* Training: with the weights for this staleness. Evaluation: with the true ones. */
pt_status pt_stage_forward(pt_stage *stage, pt_micro_batch *mb, int staleness,
                           const pt_between_ops *between, pt_error *err);
/* Last stage: loss of the micro-batch; in training also the gradient that backward_input starts
 * from. `answer`: int32_t labels (samples) that pt_loss_check_labels has seen, or for mse float
 * targets (samples, outputs). `scale` is 1 / samples of the step. Once for each micro-batch. */
pt_status pt_stage_loss(pt_stage *stage, pt_micro_batch *mb, const void *answer, float scale,
                        pt_loss_result *host_result, pt_error *err);
/* Last stage: predictions, plain (samples, outputs), to any host memory; waits. */
pt_status pt_stage_predictions(pt_stage *stage, const pt_micro_batch *mb, float *dst,
                               pt_error *err);

/* `accumulate`: false for the first micro-batch of a step. */
pt_status pt_stage_backward_input(pt_stage *stage, pt_micro_batch *mb, bool accumulate,
                                  const pt_between_ops *between, pt_error *err);
pt_status pt_stage_backward_weight(pt_stage *stage, pt_micro_batch *mb, bool accumulate,
                                   const pt_between_ops *between, pt_error *err);

#endif
