/* A backend that does its work late: the ref backend, whose calls are queued on their lanes and run
 * in an order that a seed decides, as far as events allow. Whatever is not held by an event happens
 * too early or too late sooner or later. It takes over an open ref backend, with a run built on it,
 * for one process at a time. */
#ifndef PIPETRAIN_TESTS_LATE_BACKEND_H
#define PIPETRAIN_TESTS_LATE_BACKEND_H

#include "pipetrain/backend.h"

/* From now on `b` is late. Ends the process when all lanes wait for each other. */
void late_begin(pt_backend *b, uint64_t seed);
/* How many calls were queued, and the most at once, since late_begin. Call before b is closed. */
void late_counts(int64_t *ret_calls, int64_t *ret_most_at_once);

#endif
