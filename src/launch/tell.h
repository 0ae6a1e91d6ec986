/* What the launcher says from launch to launch. */
#ifndef PIPETRAIN_LAUNCH_TELL_H
#define PIPETRAIN_LAUNCH_TELL_H

#include "options.h"
#include "pipetrain/store.h"
#include "policy.h"
#include "progress.h"

/* `hosts`: of this launch. */
void pt_tell_training(const pt_progress *now, const pt_store_hosts *hosts);
/* How a launch has ended, and what follows. */
void pt_tell_end(const pt_launch_options *options, const pt_ending *ending,
                 const pt_verdict *verdict);

#endif
