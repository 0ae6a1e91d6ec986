/* Signals as messages: they are blocked, and taken one by one where they can be answered. */
#ifndef PIPETRAIN_LAUNCH_SIGNALS_H
#define PIPETRAIN_LAUNCH_SIGNALS_H

#include <stdint.h>

#include "pipetrain/status.h"

/* Blocks SIGINT, SIGTERM, SIGHUP (unless it is ignored: nohup), SIGUSR1 and SIGCHLD. ret_fd:
 * close() it. */
pt_status pt_signals_open(int *ret_fd, pt_error *err);
/* Waits for one of them for at most `limit_ns`; its number, or 0. */
int pt_signals_take(int fd, int64_t limit_ns);

#endif
