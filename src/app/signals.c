/* Ctrl-C. The handler only sets a flag: the loop that sees it reports and leaves in order. If
 * nobody sees it within a second (an op that takes very long, a system call that hangs), SIGALRM
 * ends the process, so that all ranks are gone within two seconds whatever they were doing. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "pipetrain/clock.h"
#include "pipetrain/log.h"

static volatile int stop;
static volatile int speaks; /* this process is the one that says so */

enum { PATIENCE_S = 1, EXIT_INTERRUPTED = 130 };
/* See pt_app_leave. */
enum { LEAVE_NS = 150 * 1000 * 1000, STEP_NS = 20 * 1000 * 1000, STEPS = 8 };

/* Nobody looked at the flag. Only what POSIX allows inside a handler. */
static void leave(int signal_number)
{
    static const char said[] = "error: interrupted\n";
    (void)signal_number;
    if (speaks && write(STDERR_FILENO, said, sizeof said - 1) < 0)
        _exit(EXIT_INTERRUPTED);
    _exit(EXIT_INTERRUPTED);
}

/* mpirun is ending the job already: one more failure would only make it wait longer, and
 * MPI_Finalize would wait for ranks that are gone. The nap has two reasons. The other ranks come
 * out of MPI before this one vanishes, or they complain about it. And between its signals mpirun
 * sleeps until a second is over or a process ends, so ends that follow one another make it quick.
 */
void pt_app_leave(pt_world *world, const char *where)
{
    int rank = pt_world_rank(world);
    bool alone = pt_world_size(world) == 1;
    if (rank == 0 && !pt_world_is_aborting(world))
        pt_log(PT_LOG_ERROR, "%s: %s", where,
               alone ? "interrupted"
                     : "ended by a signal (Ctrl-C, or another rank died: then mpirun says which)");
    fflush(NULL);
    if (alone)
        pt_world_close(world); /* nobody to wait for, and Open MPI has files to take away */
    else
        pt_clock_sleep_ns(LEAVE_NS + rank % STEPS * STEP_NS);
    _exit(EXIT_INTERRUPTED);
}

static void ask_to_stop(int signal_number)
{
    if (stop)
        leave(signal_number);
    stop = signal_number;
    alarm(PATIENCE_S);
}

static void handle(int signal_number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigaction(signal_number, &action, NULL);
}

void pt_app_catch_signals(void)
{
    speaks = pt_world_is_first_process(); /* a handler may not look at the environment */
    handle(SIGINT, ask_to_stop);
    handle(SIGTERM, ask_to_stop);
    handle(SIGALRM, leave);
}

void pt_app_has_spoken(void)
{
    speaks = 0;
}

const volatile int *pt_app_stop_flag(void)
{
    return &stop;
}
