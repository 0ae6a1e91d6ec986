/* The hosts of a run: which there are, which can be reached, what mpirun is told of them. */
#ifndef PIPETRAIN_LAUNCH_HOSTS_H
#define PIPETRAIN_LAUNCH_HOSTS_H

#include <stdbool.h>

#include "pipetrain/status.h"

typedef struct pt_host {
    char *name;
    int slots;    /* ranks that it takes */
    bool is_left; /* out, because it cannot be reached */
} pt_host;

/* Zero-initialise. n = 0: mpirun finds hosts by itself. */
typedef struct pt_hosts {
    pt_host *list;
    int n;
} pt_hosts;

/* "a:2,b:2"; a host without a number has one slot. PT_EINPUT: what is wrong with which word. */
pt_status pt_hosts_parse(const char *text, pt_hosts *ret_hosts, pt_error *err);
/* Lines as Open MPI's host files have them: "a slots=2", "b", "# a remark". */
pt_status pt_hosts_read(const char *path, pt_hosts *ret_hosts, pt_error *err);
void pt_hosts_clear(pt_hosts *hosts);

/* Is it the machine that this runs on? */
bool pt_host_is_local(const char *name);

/* Leaves out the hosts for which `command` fails or takes longer than `limit_s`; it is a line for
 * /bin/sh that finds the host's name in $1. All are asked at once, this machine is not asked. */
pt_status pt_hosts_probe(pt_hosts *hosts, const char *command, double limit_s, pt_error *err);

/* Slots of the hosts that are not left out. */
int pt_hosts_slots(const pt_hosts *hosts);
/* The same hosts as --host of mpirun wants them: "a:2,b:2"; free() it. NULL: no memory. */
char *pt_hosts_argument(const pt_hosts *hosts);

#endif
