/* --log: one JSON object a line. Private to src/run.
 *
 *   {"type": "run", …settings and stages…}
 *   {"type": "step", "step": 1, "epoch": 0, "loss": 2.3, "accuracy": 0.1, "lr": 0.05, …}
 *   {"type": "gap", "step": 1875, "epoch": 0, "measured": [9, 9], "gap": [1e-3, 0.0], …}
 *   {"type": "eval", "step": 1875, "epoch": 0, "test_loss": 0.4, "test_accuracy": 0.86}
 *   {"type": "validation", "step": 1875, "epoch": 0, "validation_loss": 0.4, …}
 *   {"type": "checkpoint", "step": 1875, "committed": true, "seconds": 0.05}
 *   {"type": "end", …}                                                                          */
#ifndef PIPETRAIN_RUN_LOG_FILE_H
#define PIPETRAIN_RUN_LOG_FILE_H

#include "reporter.h"

typedef struct pt_log_file pt_log_file;

/* `again`: what is there stays, and the run's lines come behind. `classes`: the model classifies;
 * otherwise accuracies are null. */
pt_status pt_log_file_open(const char *path, bool again, bool classes, pt_log_file **ret_log,
                           pt_error *err);
void pt_log_file_close(pt_log_file *log); /* NULL is fine */

pt_status pt_log_file_run(pt_log_file *log, const pt_run *run, const stage_card *cards,
                          pt_error *err);
/* `step` counts from 1 over the whole run. */
pt_status pt_log_file_step(pt_log_file *log, const pt_step_result *record, int64_t step,
                           pt_error *err);
/* Of an epoch: sums, one entry a stage; their means are written. */
pt_status pt_log_file_gap(pt_log_file *log, uint32_t epoch, int64_t step, const pt_gap_found *gaps,
                          int stages, pt_error *err);
pt_status pt_log_file_evaluation(pt_log_file *log, uint32_t epoch, eval_set set,
                                 const run_totals *totals, pt_error *err);
/* `committed`: or it could not be written. */
pt_status pt_log_file_checkpoint(pt_log_file *log, int64_t step, bool committed, double seconds,
                                 pt_error *err);
pt_status pt_log_file_finish(pt_log_file *log, const run_totals *totals, pt_error *err);

#endif
