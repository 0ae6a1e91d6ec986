/* Checkpoints of a run: when they are taken, how they come to disk while training goes on, and how
 * a run goes on from one.
 *
 *   step begins     rank 0 tells all whether it is the last before a checkpoint, or before the end
 *                   that SIGUSR1 asked for; it is the first to begin any step, so nobody has gone
 *                   on when the word comes
 *   step ends       the pipeline has drained: each rank copies its layers into memory
 *   …               a thread writes them, while the next steps run
 *   … between ops   ranks tell rank 0 what they wrote; when all have, its thread commits the step
 *
 * One checkpoint is under way at a time: the next one waits for it. Private to src/run. */
#ifndef PIPETRAIN_RUN_CHECKPOINT_H
#define PIPETRAIN_RUN_CHECKPOINT_H

#include "pipetrain/run.h"

/* ---- going on: phases of opening --------------------------------------------------------------
 */
/* Rank 0 finds the newest good step of --resume, and readies the directory of --checkpoint. */
pt_status pt_checkpoint_find(pt_run *run, pt_error *err);
/* Collective: all ranks learn of it. */
pt_status pt_checkpoint_share(pt_run *run, pt_error *err);
/* Gives the weights what was found, if anything was. */
pt_status pt_checkpoint_load(pt_run *run, pt_error *err);

/* ---- taking them ------------------------------------------------------------------------------
 */
/* What a copy takes of the backend's memory; 0 without --checkpoint, or where it lies elsewhere. */
pt_status pt_checkpoint_predict_bytes(const pt_run *run, size_t *ret_bytes, pt_error *err);
/* Does nothing without --checkpoint. */
pt_status pt_checkpoint_open(pt_run *run, pt_error *err);
/* Collective, behind that: the hosts of all ranks get their numbers. */
pt_status pt_checkpoint_number_hosts(pt_run *run, pt_error *err);
/* Collective, when all ranks have opened theirs. */
pt_status pt_checkpoint_join(pt_run *run, pt_error *err);
void pt_checkpoint_close(pt_checkpoint *checkpoint); /* waits for the thread; NULL is fine */

/* For the engine's hooks. `step`: of the run, counted from 1 as it ends. */
pt_status pt_checkpoint_step_begins(pt_checkpoint *checkpoint, int64_t step, bool *ret_last,
                                    pt_error *err);
pt_status pt_checkpoint_between(pt_checkpoint *checkpoint, pt_error *err);

/* When a pass has ended, `step` steps of the run done: takes a checkpoint if that was why. Waits
 * for the one before. `sums`: of the epoch so far. Collective. A checkpoint that cannot be written
 * is a warning; a failure here is the device's, or another rank's. Where the run stops with it: it
 * is waited for, PT_ESTOPPED on all ranks when it is there, PT_EIO on rank 0 when it is not. */
pt_status pt_checkpoint_take(pt_checkpoint *checkpoint, int64_t step, const pt_pass_result *sums,
                             pt_error *err);
/* --keep-best, after an evaluation of what is held out: the score of the weights after its step.
 * Its checkpoint stays, and `best` names it, if that is better than the best so far and could be
 * committed. Rank 0's counts. */
void pt_checkpoint_score(pt_checkpoint *checkpoint, const pt_score *score);
/* That `best` names; step 0: none. Rank 0. NULL is fine. */
pt_score pt_checkpoint_best(const pt_checkpoint *checkpoint);
/* At the end of the run: waits for the last one. PT_EIO on rank 0: that one failed. */
pt_status pt_checkpoint_finish(pt_checkpoint *checkpoint, pt_error *err);

/* Behind all else: waits until the command of --upload has ended for every step that it is for, for
 * as long as that takes; an interrupt ends it. */
pt_status pt_checkpoint_finish_upload(pt_checkpoint *checkpoint, pt_error *err);

#endif
