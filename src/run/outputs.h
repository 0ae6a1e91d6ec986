/* Do outputs get in each other's way? Private to src/run. */
#ifndef PIPETRAIN_RUN_SETTINGS_OUTPUTS_H
#define PIPETRAIN_RUN_SETTINGS_OUTPUTS_H

#include "pipetrain/run.h"

/* A phase of opening, before any of them is opened. Rank 0, which writes them, looks at the files.
 * PT_EINPUT: two options name one. */
pt_status pt_outputs_check(pt_run *run, pt_error *err);

#endif
