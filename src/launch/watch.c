/* The loop. Ctrl-C once, SIGTERM, SIGHUP and SIGUSR1 mean: checkpoint and stop, which is what ranks
 * do at SIGUSR1, and mpirun passes that on. Before they train there is nothing to keep, and an
 * mpirun or a rank that is still starting may have no handler: then the run is ended. Ctrl-C again
 * means: end now. */
#include "watch.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pipetrain/clock.h"
#include "pipetrain/log.h"
#include "signals.h"

static const int64_t LOOK_NS = 100000000; /* between looks at the progress file */

static const char NO_JOB[] = "nothing is started any more";

static const char *what_follows(const pt_watch *w)
{
    return w->patience.has_begun
               ? "training stops at the next step, with a checkpoint; Ctrl-C (again) ends it now"
               : "training has not begun: the run is ended";
}

/* follows: what becomes of the job, if there is one. */
static void heed(const pt_watch *w, int number, const char *follows)
{
    bool again = *w->wish != PT_WISH_GO_ON;
    if (number == SIGCHLD || (again && number != SIGINT))
        return;
    *w->wish = again ? PT_WISH_END_NOW : PT_WISH_STOP;
    if (again)
        pt_log(PT_LOG_INFO, "launcher: ends now");
    else
        pt_log(PT_LOG_INFO, "launcher: %s: %s", strsignal(number), follows);
}

/* Has it ended? Also notes when it is stopped and goes on. */
static bool has_ended(pt_watch *w, const pt_process *mpirun, int *ret_code)
{
    int status = 0;
    while (waitpid((pid_t)mpirun->pid, &status, WNOHANG | WUNTRACED | WCONTINUED) > 0) {
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            *ret_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            return true;
        }
        w->patience.suspended_ns = WIFSTOPPED(status) ? pt_clock_ns() : 0;
    }
    return false;
}

static void look(pt_watch *w)
{
    pt_progress now;
    bool began = w->patience.has_begun;
    bool there = pt_progress_read(w->progress, &now);
    pt_patience_see(&w->patience, there ? &now : NULL, pt_clock_ns());
    if (!began && w->patience.has_begun)
        w->begins(w->context, &now);
}

/* A signal has come. True: the job must be ended. */
static bool obey(pt_watch *w, int number, const pt_process *mpirun, pt_ending *ending)
{
    pt_wish before = *w->wish;
    look(w); /* it may have begun since */
    heed(w, number, what_follows(w));
    if (before == PT_WISH_GO_ON && *w->wish == PT_WISH_STOP && w->patience.has_begun)
        kill((pid_t)mpirun->pid, SIGUSR1);
    else if (*w->wish == PT_WISH_STOP && !w->patience.has_begun)
        ending->cause = PT_CAUSE_NOT_BEGUN;
    return *w->wish == PT_WISH_END_NOW || ending->cause == PT_CAUSE_NOT_BEGUN;
}

/* Those that have come already. */
static void heed_the_rest(const pt_watch *w)
{
    for (int number; (number = pt_signals_take(w->signals, /*limit_ns=*/0)) != 0;)
        heed(w, number, NO_JOB);
}

void pt_watch_job(pt_watch *w, const pt_process *mpirun, pt_ending *ret_ending)
{
    pt_ending ending = {.cause = PT_CAUSE_ENDED};
    pt_patience_start(&w->patience, pt_clock_ns());
    for (int64_t next = w->patience.started_ns; !has_ended(w, mpirun, &ending.code);) {
        int number = pt_signals_take(w->signals, next - pt_clock_ns());
        if (number && obey(w, number, mpirun, &ending))
            break;
        if (pt_clock_ns() < next)
            continue;
        next = pt_clock_ns() + LOOK_NS;
        look(w);
        if (pt_patience_is_over(&w->patience, pt_clock_ns(), &ending.cause))
            break;
    }
    heed_the_rest(w);
    look(w);
    ending.has_begun = w->patience.has_begun;
    ending.wish = *w->wish;
    *ret_ending = ending;
}

void pt_watch_pause(const pt_watch *w, double seconds)
{
    int64_t end = pt_clock_ns() + (int64_t)(seconds * 1e9);
    heed_the_rest(w); /* also where there is nothing to wait for */
    for (int64_t now; *w->wish == PT_WISH_GO_ON && (now = pt_clock_ns()) < end;) {
        int number = pt_signals_take(w->signals, end - now);
        if (number)
            heed(w, number, NO_JOB);
    }
}
