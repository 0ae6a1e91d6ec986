/* The files that a run is asked to write: do they get in each other's way, can they be written?
 * Private to src/run. */
#ifndef PIPETRAIN_RUN_OUTPUTS_H
#define PIPETRAIN_RUN_OUTPUTS_H

#include "pipetrain/run.h"

/* A phase of opening, before any of them is opened. Rank 0, which writes them, looks at the files.
 * PT_EINPUT: two options name one. */
pt_status pt_outputs_check(pt_run *run, pt_error *err);
/* Those that are written at the end are tried at the start, and keep what they hold until then: the
 * plan may replace the very partition file. Rank 0, or whoever is alone. PT_EINPUT. */
pt_status pt_outputs_try(const pt_run *run, pt_error *err);

#endif
