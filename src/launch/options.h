/* The launcher's command line. */
#ifndef PIPETRAIN_LAUNCH_OPTIONS_H
#define PIPETRAIN_LAUNCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "hosts.h"
#include "pipetrain/options.h"
#include "pipetrain/status.h"
#include "progress.h"

enum { PT_LAUNCH_MOST_OPTIONS = 16 };

typedef struct pt_launch_options {
    bool help, version;
    int64_t restarts, min;
    double backoff_max, start_limit; /* seconds */
    char *hosts_text, *hostfile, *probe, *stall_text, *state, *mpirun;
    /* What follows from these and from the words behind "--". */
    pt_hosts hosts;
    pt_stall stall;
    char *checkpoint;   /* the program's --checkpoint */
    char *const *words; /* of argv: for mpirun; ended by NULL */
    pt_options table;
    unsigned char sources[PT_LAUNCH_MOST_OPTIONS];
} pt_launch_options;

/* Reads and checks all of it. `options` is the caller's, who clears it in any case. PT_EINPUT: what
 * is wrong and what to write. With --help and --version nothing else is asked for. */
pt_status pt_launch_options_read(pt_launch_options *options, int argc, char *const argv[],
                                 pt_error *err);
void pt_launch_options_clear(pt_launch_options *options);
void pt_launch_options_help(FILE *out);

#endif
