/* Launch after launch, until one of them is final. */
#ifndef PIPETRAIN_LAUNCH_LAUNCHER_H
#define PIPETRAIN_LAUNCH_LAUNCHER_H

#include "options.h"

/* ret_code: what the launcher shall end with. PT_EINPUT: nothing was started, because another
 * launcher works here or the state is not one. Blocks signals for good (signals.h). */
pt_status pt_launcher_run(pt_launch_options *options, int *ret_code, pt_error *err);

#endif
