/* How far training is, as rank 0 writes it to the file that PIPETRAIN_PROGRESS names, and how long
 * it may stay there. */
#ifndef PIPETRAIN_LAUNCH_PROGRESS_H
#define PIPETRAIN_LAUNCH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/status.h"

/* "launch 3 step 120 of 4690 median-step-us 31800". */
typedef struct pt_progress {
    int64_t launch, step, total;
    int64_t median_us;   /* of a step; 0: none has ended yet */
    int64_t modified_ns; /* when the file was written last, by its file system's clock */
} pt_progress;

/* False: there is no such file yet, or not a whole line in it. */
bool pt_progress_read(const char *path, pt_progress *ret_progress);
bool pt_progress_parse(const char *line, pt_progress *ret_progress);
/* Has anything happened between the two? */
bool pt_progress_differs(const pt_progress *one, const pt_progress *other);

/* --stall: off, auto, or a number of seconds. */
typedef struct pt_stall {
    bool is_off, is_auto;
    double seconds;
} pt_stall;

/* PT_EINPUT: what may be written. `where` is who said it: "--stall". */
pt_status pt_stall_parse(const char *where, const char *text, pt_stall *ret_stall, pt_error *err);

/* max(5 s, 10 x the median step), or what was given. ns; 0: for ever. */
int64_t pt_stall_limit_ns(const pt_stall *stall, int64_t median_us);

#endif
