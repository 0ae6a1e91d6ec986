/* Time. One monotonic clock for everything that is measured; nanoseconds since an arbitrary start.
 */
#ifndef PIPETRAIN_CLOCK_H
#define PIPETRAIN_CLOCK_H

#include <stdint.h>

int64_t pt_clock_ns(void);

/* Sleeps at least `ns` nanoseconds unless a signal arrives. */
void pt_clock_sleep_ns(int64_t ns);

#endif
