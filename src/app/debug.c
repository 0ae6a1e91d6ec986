/* --debug[=RANKS]: a rank says where it is and how to attach to it, then waits until somebody has
 * attached and released it:
 *
 *   gdb -p PID -ex 'set var *(int *)&pt_debug_wait = 0' -ex continue
 *
 * (The cast is for builds without debugging information, in which gdb knows no types.)
 *
 * The loop sleeps in its own frame, so `up` shows this function and the variable. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "app.h"
#include "pipetrain/clock.h"
#include "pipetrain/log.h"

/* Not static: a debugger finds it by name from any frame. */
extern volatile int pt_debug_wait;
volatile int pt_debug_wait = 1;

static const int64_t NAP_NS = 50000000; /* between looks at the variable */

/* Is `rank` on the list "0,2,5"? The empty list means everybody. */
static pt_status is_listed(const char *ranks, int rank, int size, bool *ret_listed, pt_error *err)
{
    bool listed = *ranks == 0;
    for (const char *at = ranks; *at;) {
        char *end = NULL;
        errno = 0;
        long n = strtol(at, &end, 10);
        if (end == at || errno || n < 0 || n >= size || (*end && *end != ',') || (*end && !end[1]))
            return pt_fail(err, PT_EINPUT,
                           "--debug=%s: write ranks between 0 and %d, such as --debug=0%s, or "
                           "--debug alone for all",
                           ranks, size - 1, size > 1 ? ",1" : "");
        listed |= n == rank;
        at = *end ? end + 1 : end;
    }
    *ret_listed = listed;
    return PT_OK;
}

static void explain(const pt_world *world)
{
    long pid = getpid();
    char text[1024];
    snprintf(text, sizeof text,
             "rank %d (stage %d) waits for a debugger: host %s, pid %ld\n"
             "  gdb       gdb -p %ld -ex 'set var *(int *)&pt_debug_wait = 0' -ex continue\n"
             "  cuda-gdb  cuda-gdb -p %ld -ex 'set var *(int *)&pt_debug_wait = 0' -ex continue\n"
             "  VS Code   {\"type\": \"cppdbg\", \"request\": \"attach\", \"name\": \"rank %d\", "
             "\"program\": \"${workspaceFolder}/pipetrain\", \"processId\": \"%ld\", \"MIMode\": "
             "\"gdb\"}, then in its console: -exec set var *(int *)&pt_debug_wait = 0\n",
             pt_world_rank(world), pt_world_rank(world), pt_world_host(world), pid, pid, pid,
             pt_world_rank(world), pid);
    fputs(text, stderr);
    fflush(stderr);
}

pt_status pt_app_wait_for_debugger(const pt_world *world, const char *ranks, pt_error *err)
{
    bool listed = false;
    PT_TRY(is_listed(ranks, pt_world_rank(world), pt_world_size(world), &listed, err));
    if (!listed)
        return PT_OK;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* Yama may allow parents alone to attach */
    explain(world);
    while (pt_debug_wait) {
        if (*pt_app_stop_flag())
            return pt_fail(err, PT_EINTERRUPTED, "interrupted while waiting for a debugger");
        pt_clock_sleep_ns(NAP_NS);
    }
    return PT_OK;
}
