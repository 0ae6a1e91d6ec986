/* What the files that open a run share: setup.c (the phases), setup_data.c (what is read),
 * setup_plan.c (steps and lists), setup_stage.c (the stages and their weights), memory.c (does it
 * fit?) and p2p.c (where do messages lie?). Private to src/run. */
#ifndef PIPETRAIN_RUN_SETUP_H
#define PIPETRAIN_RUN_SETUP_H

#include "pipetrain/run.h"

/* ---- setup_data.c -----------------------------------------------------------------------------
 */
pt_status pt_run_open_data(pt_run *run, pt_error *err);
/* How epochs and what is evaluated fall apart, from the settings and the data that is open. */
void pt_run_divide(pt_run *run);
/* The distinct micro-batch sizes of evaluations; returns how many. */
int pt_run_eval_sizes(const pt_run *run, int64_t ret_sizes[PT_MAX_SIZES]);

/* ---- setup_plan.c -----------------------------------------------------------------------------
 */
/* Of all ranks; and the number of this rank's. */
int pt_run_all_blocks(const pt_run *run);
int pt_run_block(const pt_run *run, int chunk);
/* What the checker found of one, in the run's longest span; NULL: the run does not train. */
const pt_schedule_rank *pt_run_facts(const pt_run *run, int chunk);

/* How many steps and epochs, and the lists of actions for them. */
pt_status pt_run_plan(pt_run *run, pt_error *err);

/* span.c: run->sync, for --sync-epochs. `spec` is that of an asynchronous epoch. PT_EINPUT: they
 * are all that the run has. */
pt_status pt_run_plan_sync(pt_run *run, const pt_schedule_spec *spec, pt_error *err);
/* PT_EINPUT: --gap-every is more than an epoch's micro-batches. */
pt_status pt_run_accept_gap(const pt_run *run, pt_error *err);
/* The most that a chunk of this rank (ALL_STASH: all of them) has of something at once, over all
 * training spans. */
typedef enum pt_run_peak_of {
    PT_PEAK_STASH,
    PT_PEAK_ALL_STASH,
    PT_PEAK_VERSIONS,
    PT_PEAK_HELD
} pt_run_peak_of;
int pt_run_peak(const pt_run *run, int chunk, pt_run_peak_of what);
int pt_run_link_slots(const pt_run *run);

/* ---- setup_stage.c: phases, and the plans they open from ---------------------------------------
 */
pt_stage_plan pt_run_stage_plan(const pt_run *run, int chunk);
pt_weights_spec pt_run_weights_spec(const pt_run *run, int chunk);
pt_status pt_run_open_blocks(pt_run *run, pt_error *err);
/* What each block costs: as --clock states, or measured. */
pt_status pt_run_profile(pt_run *run, pt_error *err);
/* Random, or from --init or --weights. */
pt_status pt_run_give_weights(pt_run *run, pt_error *err);
/* Collective. A path that holds nothing of this model, on any rank, is PT_EINPUT. */
pt_status pt_run_count_loaded(pt_run *run, pt_error *err);
/* When all ranks have found something: says what this one did not. */
pt_status pt_run_name_missing(pt_run *run, pt_error *err);

/* ---- train.c ----------------------------------------------------------------------------------
 */
/* Is the end of this epoch, counted from 0, evaluated? */
bool pt_run_evaluates(const pt_run *run, int64_t epoch);
/* What a training run hears of its engine. */
pt_engine_hooks pt_run_hooks(pt_run *run);

/* ---- recompute.c ------------------------------------------------------------------------------
 */
/* Finds the layers that --recompute names. */
pt_status pt_run_find_recomputed(pt_run *run, pt_error *err);
/* Tells the stage of them, where that saves memory. */
void pt_run_plan_recompute(const pt_run *run, pt_stage_plan *plan);

/* ---- memory.c: two phases, for every rank must learn what fits on all --------------------------
 */
/* Predicts the bytes and reserves them. A device that lacks them is remembered in `refusal`, with
 * the largest micro-batch that would fit here. */
pt_status pt_run_reserve(pt_run *run, pt_error *err);
/* Collective. PT_EINPUT: what is missing, and the largest micro-batch that fits on all ranks. */
pt_status pt_run_fit(pt_run *run, pt_error *err);
/* Returns `status`, and has a failure of the machine say on which of several ranks it happened. */
pt_status pt_run_name_rank(const pt_run *run, pt_status status, pt_error *err);

/* ---- p2p.c ------------------------------------------------------------------------------------
 */
/* Collective. Decides where the slots of links lie: --p2p. */
pt_status pt_run_choose_links(pt_run *run, pt_error *err);
/* The same on every rank: the least of what they say. Collective; without a world it is `mine`. */
pt_status pt_run_least(pt_run *run, int64_t mine, int64_t *ret_least, pt_error *err);

#endif
