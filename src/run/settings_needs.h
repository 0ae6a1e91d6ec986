/* Which options go with which: for settings.c, when all were said. Private to src/run. */
#ifndef PIPETRAIN_RUN_SETTINGS_NEEDS_H
#define PIPETRAIN_RUN_SETTINGS_NEEDS_H

#include "pipetrain/settings.h"

/* PT_EINPUT: an option of the command line would do nothing, or lacks one: what to write instead.
 */
pt_status pt_needs_settle(const pt_config *config, pt_error *err);
/* The backend `clock` computes nothing: what would show or keep numbers is refused, evaluations are
 * left out. */
pt_status pt_needs_settle_clock(pt_config *config, pt_error *err);

#endif
