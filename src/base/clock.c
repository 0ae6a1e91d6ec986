/* Time: CLOCK_MONOTONIC, which no administrator and no leap second moves. */
#include "pipetrain/clock.h"

#include <time.h>

static const int64_t NS_PER_S = 1000000000;

int64_t pt_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

void pt_clock_sleep_ns(int64_t ns)
{
    if (ns <= 0)
        return;
    struct timespec span = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
    nanosleep(&span, NULL); /* a signal ends it early, so that Ctrl-C is never slept through */
}
