/* The engine runs one rank's list of actions: one switch, no decisions. What arrives first never
 * changes the order; the schedule alone does.
 *
 *      rank s-1                      rank s                            rank s+1
 *   SEND_ACT ────acts(s-1→s)────► RECV_ACT FORWARD SEND_ACT ────acts(s→s+1)────► RECV_ACT
 *   RECV_GRAD ◄──grads(s→s-1)──── SEND_GRAD BACKWARD RECV_GRAD ◄─grads(s+1→s)─── SEND_GRAD
 *
 * A rank with several chunks has a stage for each, and links for each; the last rank's SEND_ACT of
 * one chunk is met by the first rank's RECV_ACT of the next. This is the only place where stages
 * and links meet. */
#ifndef PIPETRAIN_ENGINE_H
#define PIPETRAIN_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/dataset.h"
#include "pipetrain/loader.h"
#include "pipetrain/mark.h"
#include "pipetrain/schedule.h"
#include "pipetrain/stage.h"
#include "pipetrain/status.h"
#include "pipetrain/world.h"

typedef struct pt_engine pt_engine;

/* What happened to one micro-batch on this rank. Times: ns on this rank's pt_clock_ns; a start of 0
 * means that the action did not happen. */
typedef struct pt_timing {
    int32_t epoch, step, micro_batch, samples; /* step, micro_batch: of the epoch */
    int32_t chunk;
    int32_t staleness;
    int64_t version; /* updates this stage had done before the forward */
    int64_t forward_start, forward_ns;
    int64_t backward_start, backward_ns;        /* input and weight gradient together … */
    int64_t weight_start, weight_ns;            /* … but not one that waited for other work */
    int64_t update_start, update_ns;            /* of the step that this micro-batch ends */
    int64_t recv_act_ns, recv_grad_ns, send_ns; /* waits */
} pt_timing;

/* One optimizer step as the last stage saw it. */
typedef struct pt_step_result {
    int32_t epoch;
    int64_t step; /* of the epoch */
    int64_t samples, correct;
    double loss; /* sum over the samples */
    double norm; /* global gradient norm before clipping; NAN when no norm was taken */
    double lr;
} pt_step_result;

/* What the run wants to hear; any may be NULL. They return a status: a failure ends the pass. */
typedef struct pt_engine_hooks {
    void *context;
    /* last stage, after each UPDATE */
    pt_status (*step_done)(void *context, const pt_step_result *result, pt_error *err);
    /* last stage, after each INFER: plain predictions (item->samples, outputs) on the host */
    pt_status (*predicted)(void *context, const pt_epoch_item *item, const float *y, pt_error *err);
    /* every rank, between ops and actions: a good time to look at the mail; must be quick */
    pt_status (*between)(void *context, pt_error *err);
    /* every rank, training: before its first action of a step (of the epoch). *ret_last, which is
     * false before, makes that step the pass's last: what is under way ends, and nothing of later
     * steps begins. All ranks must say the same of a step. */
    pt_status (*step_begins)(void *context, int64_t step, bool *ret_last, pt_error *err);
} pt_engine_hooks;

/* Inputs come from a dataset or, for --infer, from wherever the function takes them. */
typedef struct pt_source {
    const pt_dataset *dataset;
    const pt_normalisation *normalisation;
    const pt_augmentation *augmentation; /* NULL: none */
} pt_source;

/* A block of layers on this rank. */
typedef struct pt_engine_block {
    pt_stage *stage;
    const pt_stage_spec *spec;
    int slots; /* of the stage: micro-batches in flight at most */
} pt_engine_block;

typedef struct pt_engine_spec {
    pt_world *world;
    pt_backend *backend;
    const pt_engine_block *blocks; /* one per chunk, chunk 0 first; copied */
    int chunks;                    /* as many on every rank */
    const pt_graph *graph;
    uint64_t seed;
    double clip; /* largest global gradient norm; 0: do not clip */
    bool blocking_sends;
    bool fail_at_update;        /* for tests: the first UPDATE fails */
    bool device_links;          /* messages travel from device to device */
    int link_slots;             /* pt_schedule_slots of the run's schedule */
    int64_t largest_samples;    /* largest micro-batch */
    int64_t most_micro_batches; /* of any pass that wants timings */
    pt_engine_hooks hooks;
    pt_mark *mark; /* where the engine says what it does; NULL: nobody looks */
} pt_engine_spec;

/* Opens links to the neighbours; every rank calls it. */
pt_status pt_engine_new(const pt_engine_spec *spec, pt_engine **ret_engine, pt_error *err);
/* Other listeners from now on. */
void pt_engine_set_hooks(pt_engine *engine, const pt_engine_hooks *hooks);
void pt_engine_free(pt_engine *engine); /* NULL is fine */

/* Sums over the micro-batches of a pass, or of the parts of an epoch. */
typedef struct pt_pass_result {
    double loss; /* sum over samples; last stage only */
    int64_t correct, samples;
    int64_t elapsed_ns; /* from the first to the end of the last action */
    int64_t busy_ns;    /* computing: loading, forward, backward, update */
    int64_t recv_wait_ns, send_wait_ns;
    int64_t window_ns, window_busy_ns; /* between the end of the fill and the start of the drain;
                                          synchronous: as elapsed and busy */
    int64_t staleness_sum, forwards;
    int32_t staleness_max;
    int64_t end_step; /* of the epoch: the first that has not begun */
} pt_pass_result;

/* One span of a schedule over an epoch, or over a part of it: the list's actions from `first_step`
 * on, up to where step_begins ends it. Such a part is as free of deadlock as the list: its messages
 * keep their order, and each waits for no more than before. Weights are then less late at first, as
 * at the beginning of any span: staleness counts updates of this pass alone. */
typedef struct pt_pass {
    const pt_action_list *list; /* this rank's, lowered and checked */
    pt_mode mode;
    uint32_t epoch;
    pt_epoch_plan plan;
    const pt_sampler *sampler; /* standing on this epoch */
    pt_source source;
    bool want_loss; /* evaluation: the last stage has answers to compare with */
    int64_t first_step;
    const pt_pass_result *before; /* sums of the epoch's earlier parts, to go on from; NULL: none.
                                     May be the result's own place */
} pt_pass;

pt_status pt_engine_run(pt_engine *engine, const pt_pass *pass, bool synchronous,
                        pt_pass_result *ret_result, pt_error *err);

/* Timings of the last training pass, in micro-batch order, those of all chunks of one side by side;
 * ret_n counts them all. */
const pt_timing *pt_engine_timings(const pt_engine *engine, int *ret_n);

/* Time spent computing since the engine was made. */
int64_t pt_engine_busy_ns(const pt_engine *engine);

/* Where a failure happened: "rank 1, stage 1, FORWARD of micro-batch 12, epoch 0"; empty between
 * passes. */
void pt_engine_where(const pt_engine *engine, char *text, size_t size);

#endif
