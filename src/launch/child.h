/* Starting a program: in a session of its own, with nothing to read and no signal blocked. */
#ifndef PIPETRAIN_LAUNCH_CHILD_H
#define PIPETRAIN_LAUNCH_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

/* words[0] is looked for in PATH. `silent`: what it prints goes nowhere. Returns when exec has
 * succeeded (0) or failed (the error's number). */
int pt_child_start(char *const *words, bool silent, pid_t *ret_pid);

#endif
