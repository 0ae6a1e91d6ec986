/* What a run says while it goes: step records travel from the last stage to rank 0, which prints
 * the true loss, writes the log and keeps the sums for the summary. Private to src/run. */
#ifndef PIPETRAIN_RUN_REPORTER_H
#define PIPETRAIN_RUN_REPORTER_H

#include "pipetrain/run.h"

/* Sums of one stage over all training passes. */
typedef struct stage_totals {
    int64_t elapsed_ns, busy_ns, window_ns, window_busy_ns, recv_wait_ns, send_wait_ns;
    int64_t staleness_sum, forwards;
    int32_t staleness_max;
    pt_gap_found gap;
} stage_totals;

/* What is evaluated. Whatever shows a score says of which set it is. */
typedef enum eval_set { EVAL_TEST, EVAL_VALIDATION, EVAL_SETS } eval_set;
extern const char *const pt_eval_names[EVAL_SETS];

/* The last evaluation of a set, and the best one; NAN: there was none, or it has no accuracy. */
typedef struct set_score {
    double loss, accuracy, best_accuracy;
    int64_t evaluations; /* of this launch */
} set_score;

/* What rank 0 knows at the end. */
typedef struct run_totals {
    double train_loss; /* mean of the last epoch */
    set_score scores[EVAL_SETS];
    int64_t steps, epochs, samples; /* steps: of the run, those before --resume included … */
    int64_t first_step;             /* … which are so many; the others are of this launch */
    int64_t train_ns;               /* in training passes */
    stage_totals *stages;           /* one per rank */
} run_totals;

pt_status pt_reporter_open(pt_run *run, pt_reporter **ret_reporter, pt_error *err);
/* Collective, after all ranks have opened theirs. */
pt_status pt_reporter_join(pt_reporter *reporter, pt_error *err);
void pt_reporter_close(pt_reporter *reporter); /* NULL is fine */

/* Hooks of the engine. */
pt_status pt_reporter_step(void *reporter, const pt_step_result *result, pt_error *err);
pt_status pt_reporter_between(void *reporter, pt_error *err);

/* Around each epoch. `steps` is how many this epoch has. end: collective; all records have arrived
 * on rank 0 when it returns, and the results of all ranks are added up. */
void pt_reporter_epoch_begin(pt_reporter *reporter, uint32_t epoch, int64_t steps);
pt_status pt_reporter_epoch_end(pt_reporter *reporter, const pt_pass_result *result, pt_error *err);
/* Before the end of an epoch that was left early: it has had so many steps, and is not counted. */
void pt_reporter_epoch_cut(pt_reporter *reporter, int64_t steps);
/* After an evaluation. Collective; `result` counts on the last stage. */
pt_status pt_reporter_evaluation(pt_reporter *reporter, eval_set set, const pt_pass_result *result,
                                 pt_error *err);
/* Rank 0, when one was committed, or could not be. `seconds`: since its copy was taken. */
pt_status pt_reporter_checkpoint(pt_reporter *reporter, int64_t step, bool committed, int files,
                                 uint64_t bytes, double seconds, pt_error *err);
/* The start-up table and the last line. Rank 0 prints. Collective. */
pt_status pt_reporter_start(pt_reporter *reporter, pt_error *err);
pt_status pt_reporter_finish(pt_reporter *reporter, pt_error *err);

const run_totals *pt_reporter_totals(const pt_reporter *reporter);

/* One entry per rank, on rank 0: what the stages of each are and cost, all chunks together. */
typedef struct stage_card {
    int rank, layers;
    int64_t parameters;
    uint64_t predicted_bytes, peak_bytes;
    pt_stage_cost cost; /* of a whole micro-batch: measured once before training, see profile.c */
    int stash_peak, staleness_max;
    int ops_again; /* that a backward runs again: --recompute */
    char host[64];
} stage_card;
stage_card pt_reporter_card(const pt_run *run); /* this rank's */
pt_status pt_reporter_cards(pt_run *run, stage_card *ret_cards, pt_error *err);
/* One entry per block, on rank 0. Collective. */
pt_status pt_reporter_costs(pt_run *run, pt_stage_cost *ret_costs, pt_error *err);
/* "conv1 … fc3", more of them for more chunks, cut or filled to so many columns. Returns `text`. */
enum { RANGE_TEXT = 256 };
const char *pt_reporter_range(const pt_run *run, const stage_card *card, int columns,
                              char text[RANGE_TEXT]);

/* What --recompute comes to, on a line after `label`; nothing where it was not asked for. */
void pt_reporter_recompute(const pt_run *run, const stage_card *cards, const char *label,
                           FILE *out);

/* Runs a micro-batch through a stage of this rank and times it. Before weights are given: it leaves
 * traces in weights, gradients and running statistics. */
pt_status pt_profile_block(pt_run *run, int chunk, pt_stage_cost *ret_cost, pt_error *err);
/* Time of a whole epoch (the mean, where some are synchronous), or of all steps where they are
 * fewer, by the simulator from the costs of all blocks; µs. Rank 0. */
pt_status pt_predict_epoch_us(const pt_run *run, const pt_stage_cost *costs, double *ret_us,
                              pt_error *err);

/* --summary. Rank 0. */
pt_status pt_write_summary(const pt_run *run, const run_totals *totals, const stage_card *cards,
                           double wall_s, pt_error *err);

/* ---- timelines: --timing and --trace ----------------------------------------------------------
 */
/* Opens the files on rank 0. */
pt_status pt_timeline_open(pt_run *run, pt_timeline **ret_timeline, pt_error *err);
/* Collective: one clock for all. */
pt_status pt_timeline_join(pt_timeline *timeline, pt_error *err);
/* Gathers the timings of the epoch that just ended and writes them. Collective. */
pt_status pt_timeline_add(pt_timeline *timeline, pt_error *err);
/* Makes the files whole. */
pt_status pt_timeline_end(pt_timeline *timeline, pt_error *err);
void pt_timeline_close(pt_timeline *timeline); /* NULL is fine */

#endif
