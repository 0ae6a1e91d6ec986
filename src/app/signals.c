/* Ctrl-C and SIGUSR1. The handlers only set flags.
 *
 * Ctrl-C: the loop that sees the flag reports and leaves in order. If nobody sees it within a
 * second (an op that takes very long, a system call that hangs), SIGALRM ends the process, so that
 * all ranks are gone within two seconds whatever they were doing.
 *
 * SIGUSR1: batch systems send it a while before a time limit. Rank 0's training loop looks at the
 * beginning of each step; see pt_run_halt_by. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "pipetrain/clock.h"
#include "pipetrain/log.h"

static volatile int stop;
static volatile int halt;
static volatile int ignores_halt;
static volatile int stalled;
static volatile int speaks; /* this process is the one that says so */

enum { PATIENCE_S = 1, EXIT_INTERRUPTED = 130, EXIT_STALLED = 1, STALLED_NS = 300 * 1000 * 1000 };
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
    if (rank == 0 && !stalled && !pt_world_is_aborting(world))
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

/* Once, and by what POSIX allows inside a handler. */
static void say_ignored(void)
{
    static const char said[] =
        "warning: SIGUSR1 asks for a checkpoint and the end, but only training "
        "with --checkpoint DIR keeps something to go on from: ignored\n";
    static volatile int once;
    if (speaks && !once && write(STDERR_FILENO, said, sizeof said - 1) > 0)
        once = 1;
}

static void ask_to_halt(int signal_number)
{
    halt = signal_number;
    if (ignores_halt)
        say_ignored();
}

static void handle_with(int signal_number, void (*handler)(int), int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(signal_number, &action, NULL);
}

static void handle(int signal_number, void (*handler)(int))
{
    handle_with(signal_number, handler, /*flags=*/0);
}

/* What the signal finds the run reading or writing goes on as if nothing had been. */
void pt_app_catch_halt(void)
{
    speaks = pt_world_is_first_process(); /* a handler may not look at the environment */
    handle_with(SIGUSR1, ask_to_halt, SA_RESTART);
}

void pt_app_ignore_halt(void)
{
    ignores_halt = 1;
    if (halt)
        say_ignored();
}

void pt_app_catch_signals(void)
{
    pt_app_catch_halt();
    handle(SIGINT, ask_to_stop);
    handle(SIGTERM, ask_to_stop);
    handle(SIGALRM, leave);
}

void pt_app_stalled(void)
{
    stalled = 1;
    pt_app_has_spoken();
    pt_clock_sleep_ns(STALLED_NS);
    _exit(EXIT_STALLED);
}

void pt_app_has_spoken(void)
{
    speaks = 0;
}

const volatile int *pt_app_stop_flag(void)
{
    return &stop;
}

const volatile int *pt_app_halt_flag(void)
{
    return &halt;
}
