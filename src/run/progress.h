/* The file that PIPETRAIN_PROGRESS names: a line of 80 bytes, always at its begin, that says how
 * far the run has come. For whoever watches a run from outside, by looking at it now and then:
 *
 *   launch 3 step 1200 of 4690 median-step-us 31800          …blanks, and the line's end
 *
 * Between steps the file's time shows that the run is alive. What cannot be written is a warning,
 * once. Rank 0. Private to src/run. */
#ifndef PIPETRAIN_RUN_PROGRESS_H
#define PIPETRAIN_RUN_PROGRESS_H

#include "pipetrain/run.h"

enum { PT_PROGRESS_BYTES = 80 };

/* NULL where the variable is not set, or the file cannot be opened. */
pt_progress *pt_progress_open(const pt_run *run);
/* `step` steps of the run are done. NULL is fine. */
void pt_progress_step(pt_progress *progress, int64_t step);
/* Something goes on that is no step, an evaluation say: the file's time says so. From any thread.
 * NULL is fine. */
void pt_progress_touch(pt_progress *progress);
void pt_progress_close(pt_progress *progress); /* NULL is fine */

#endif
