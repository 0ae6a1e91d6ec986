/* What the directory of checkpoints says of itself. */
#ifndef PIPETRAIN_LAUNCH_COMMITTED_H
#define PIPETRAIN_LAUNCH_COMMITTED_H

#include <stdint.h>

int64_t pt_committed_step(const char *directory);   /* that `latest` names; -1: none yet */
int64_t pt_committed_launch(const char *directory); /* the last one that came so far; 0: none */

#endif
