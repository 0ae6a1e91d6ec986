/* Rank 0's screen: the start-up table, a line every so many steps, a progress bar on terminals, the
 * evaluations and the end. It prints into the FILE that the run was given. Private to src/run. */
#ifndef PIPETRAIN_RUN_CONSOLE_H
#define PIPETRAIN_RUN_CONSOLE_H

#include "reporter.h"

typedef struct pt_console pt_console;

pt_status pt_console_open(pt_run *run, pt_console **ret_console, pt_error *err);
void pt_console_close(pt_console *console); /* NULL is fine */

void pt_console_start(pt_console *console, const stage_card *cards, const pt_stage_cost *costs);
void pt_console_epoch(pt_console *console, uint32_t epoch, int64_t steps);
/* `step` counts from 1 over the whole run. */
void pt_console_step(pt_console *console, const pt_step_result *record, int64_t step);
void pt_console_evaluation(pt_console *console, uint32_t epoch, eval_set set,
                           const run_totals *totals);
void pt_console_checkpoint(pt_console *console, int64_t step, int files, uint64_t bytes,
                           double seconds);
void pt_console_finish(pt_console *console, const run_totals *totals);

#endif
