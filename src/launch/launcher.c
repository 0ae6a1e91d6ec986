/* The launcher: takes over what one before it has left, then starts, watches, cleans, decides.
 *
 *      take over --> start --> watch --> end, clean --> judge --> done
 *                      ^                                  |
 *                      +------------ wait ----------------+
 */
#include "launcher.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clean.h"
#include "job.h"
#include "pipetrain/log.h"
#include "pipetrain/store.h"
#include "pipetrain/text.h"
#include "signals.h"
#include "state.h"
#include "tell.h"
#include "watch.h"

static const double PROBE_LIMIT_S = 10;

typedef struct launcher {
    pt_launch_options *options;
    int lock, signals;
    pt_wish wish;
    pt_state state;
    char
        folder[PATH_MAX]; /* of the state; absolute, for ranks may have another working directory */
    char *progress;
} launcher;

/* -1: none yet. */
static int64_t committed_step(const pt_launch_options *options)
{
    int64_t step = -1;
    pt_error unreadable = {PT_OK, ""};
    (void)pt_store_named(options->checkpoint, PT_STORE_LATEST, &step, &unreadable);
    return step;
}

/* ---- taking over ------------------------------------------------------------------------------
 */

/* Ends and cleans away what the state names; nothing of it is there behind this. */
static pt_status clear_launch(launcher *l, pt_error *err)
{
    pt_state *s = &l->state;
    if (*s->mark)
        PT_TRY(pt_job_end(&s->mpirun, s->mark, err));
    s->mpirun = (pt_process){0, 0};
    return pt_clean(s->session, PT_SHARED_MEMORY, err);
}

static pt_status take_over(launcher *l, const char *host, pt_error *err)
{
    const pt_state *s = &l->state;
    if (!*s->mark)
        return PT_OK;
    if (strcmp(s->host, host) != 0) {
        pt_log(
            PT_LOG_WARNING,
            "launcher: the one before this ran on %s: what it may have left there cannot be seen "
            "from here",
            s->host);
        return PT_OK;
    }
    int n = pt_marked_count(s->mark);
    if (n > 0)
        pt_log(PT_LOG_INFO,
               "launcher: the one before this, pid %lld, has gone; %d processes that it left are "
               "ended",
               (long long)s->launcher.pid, n);
    return clear_launch(l, err);
}

/* Names that no other launcher has, had or will have. */
static pt_status name_marks(pt_state *s, pt_error *err)
{
    struct timespec now;
    const char *base = getenv("TMPDIR");
    base = base && *base ? base : "/tmp";
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(s->mark, sizeof s->mark, "%lld-%llx%08lx", (long long)s->launcher.pid,
             (long long)now.tv_sec, now.tv_nsec);
    int length = snprintf(s->session, sizeof s->session, "%s/pipetrain-launch-%s", base, s->mark);
    if (length >= (int)sizeof s->session || base[0] != '/')
        return pt_fail(err, PT_EINPUT, "TMPDIR=%s: give a shorter, absolute path", base);
    return PT_OK;
}

static pt_status open_state(launcher *l, pt_error *err)
{
    const pt_launch_options *o = l->options;
    char host[PT_STATE_TEXT] = "";
    gethostname(host, sizeof host - 1);
    PT_TRY(pt_state_lock(o->state, &l->lock, err));
    if (!realpath(o->state, l->folder))
        return pt_fail(err, PT_EIO, "%s: %s", o->state, strerror(errno));
    l->progress = pt_text_format("%s/progress", l->folder);
    if (!l->progress)
        return pt_fail(err, PT_ENOMEM, "no memory for a path");
    PT_TRY(pt_state_read(l->folder, &l->state, err));
    PT_TRY(take_over(l, host, err));
    pt_state *s = &l->state;
    if (s->launcher.pid == 0) /* the last one ended in order: whoever starts it again means it */
        s->record.failures = 0;
    s->record.step = committed_step(o);
    memcpy(s->host, host, sizeof host);
    s->launcher = pt_process_now(getpid());
    PT_TRY(name_marks(s, err));
    return pt_state_write(l->folder, s, err);
}

/* ---- one launch -------------------------------------------------------------------------------
 */

/* False: there are too few. */
static pt_status find_hosts(launcher *l, bool *ret_enough, pt_error *err)
{
    pt_launch_options *o = l->options;
    *ret_enough = true;
    if (o->hosts.n == 0)
        return PT_OK;
    PT_TRY(pt_hosts_probe(&o->hosts, o->probe, PROBE_LIMIT_S, err));
    for (int i = 0; i < o->hosts.n; i++)
        if (o->hosts.list[i].is_left)
            pt_log(PT_LOG_WARNING, "launcher: the host %s cannot be reached: it is left out",
                   o->hosts.list[i].name);
    int slots = pt_hosts_slots(&o->hosts);
    *ret_enough = slots > 0 && slots >= o->min;
    if (!*ret_enough)
        pt_log(PT_LOG_WARNING, "launcher: %d slots are left, and --min is %lld", slots,
               (long long)o->min);
    return PT_OK;
}

/* Those of a launch alone. */
static void keep_of(pt_store_hosts *hosts, int64_t launch)
{
    int kept = 0;
    for (int i = 0; i < hosts->n; i++) {
        pt_store_host host = hosts->list[i];
        if (host.last_launch == launch)
            hosts->list[kept++] = host;
        else
            free(host.name);
    }
    hosts->n = kept;
}

static void write_state(const launcher *l, const char *what)
{
    pt_error why = {PT_OK, ""};
    if (pt_state_write(l->folder, &l->state, &why) != PT_OK)
        pt_log(PT_LOG_WARNING, "launcher: %s cannot be noted: %s", what, why.text);
}

/* Ranks have met, and said where they are. */
static void note_training(void *context, const pt_progress *now)
{
    launcher *l = context;
    pt_state *s = &l->state;
    pt_error why = {PT_OK, ""};
    pt_store_clear_hosts(&s->hosts);
    if (pt_store_read_hosts(l->options->checkpoint, &s->hosts, &why) != PT_OK)
        pt_log(PT_LOG_WARNING, "launcher: %s", why.text);
    keep_of(&s->hosts, now->launch);
    s->launch = now->launch;
    write_state(l, "the launch that trains");
    pt_tell_training(now, &s->hosts);
}

static pt_status start(launcher *l, pt_error *err)
{
    const pt_launch_options *o = l->options;
    pt_job job = {.mpirun = o->mpirun,
                  .session = l->state.session,
                  .mark = l->state.mark,
                  .stall = o->stall_text,
                  .progress = l->progress,
                  .hosts = &o->hosts,
                  .words = o->words};
    l->state.starts++;
    PT_TRY(pt_state_write(l->folder, &l->state, err));
    PT_TRY(pt_job_start(&job, &l->state.mpirun, err));
    /* The mark is written down already: that is enough to find all of it. */
    write_state(l, "the pid of mpirun");
    return PT_OK;
}

static pt_status launch(launcher *l, pt_ending *ret_ending, pt_error *err)
{
    const pt_launch_options *o = l->options;
    bool enough = false;
    pt_ending ending = {.cause = PT_CAUSE_TOO_FEW_HOSTS};
    PT_TRY(find_hosts(l, &enough, err));
    if (enough) {
        pt_watch watch = {
            .signals = l->signals,
            .progress = l->progress,
            .wish = &l->wish,
            .patience = {.stall = o->stall, .start_limit_ns = (int64_t)(o->start_limit * 1e9)},
            .begins = note_training,
            .context = l};
        PT_TRY(start(l, err));
        pt_watch_job(&watch, &l->state.mpirun, &ending);
        PT_TRY(clear_launch(l, err));
        l->state.launch = 0;
        pt_store_clear_hosts(&l->state.hosts);
        write_state(l, "that the launch is over");
    }
    ending.wish = l->wish;
    ending.step = committed_step(o);
    *ret_ending = ending;
    return PT_OK;
}

/* ---- from launch to launch --------------------------------------------------------------------
 */

static pt_status repeat(launcher *l, int *ret_code, pt_error *err)
{
    const pt_policy policy = {.restarts = l->options->restarts,
                              .backoff_max_s = l->options->backoff_max};
    const pt_watch pause = {.signals = l->signals, .wish = &l->wish};
    for (;;) {
        pt_ending ending;
        PT_TRY(launch(l, &ending, err));
        pt_verdict verdict = pt_policy_judge(&policy, &l->state.record, &ending);
        pt_tell_end(l->options, &ending, &verdict);
        l->state.record = verdict.record;
        *ret_code = verdict.code;
        if (!verdict.restart) {
            l->state.record.step = ending.step; /* nothing more will be judged by it */
            return PT_OK;
        }
        pt_watch_pause(&pause, verdict.delay_s);
        if (l->wish != PT_WISH_GO_ON) {
            ending.wish = l->wish;
            *ret_code = pt_policy_judge(&policy, &l->state.record, &ending).code;
            return PT_OK;
        }
    }
}

static pt_status close_state(launcher *l, pt_error *err)
{
    l->state.launcher = l->state.mpirun = (pt_process){0, 0};
    l->state.mark[0] = l->state.session[0] = 0;
    return pt_state_write(l->folder, &l->state, err);
}

pt_status pt_launcher_run(pt_launch_options *options, int *ret_code, pt_error *err)
{
    launcher *l = calloc(1, sizeof *l);
    if (!l)
        return pt_fail(err, PT_ENOMEM, "no memory for the launcher");
    *l = (launcher){.options = options, .lock = -1, .signals = -1};
    pt_status status = pt_signals_open(&l->signals, err);
    if (status == PT_OK)
        status = open_state(l, err);
    if (status == PT_OK) {
        pt_error ignored = {PT_OK, ""};
        status = repeat(l, ret_code, err);
        pt_status cleared = status == PT_OK ? PT_OK : clear_launch(l, &ignored);
        if (cleared == PT_OK) /* else the next one shall know of it */
            cleared = close_state(l, status == PT_OK ? err : &ignored);
        status = status == PT_OK ? cleared : status;
    }
    if (l->lock >= 0)
        close(l->lock);
    if (l->signals >= 0)
        close(l->signals);
    pt_store_clear_hosts(&l->state.hosts);
    free(l->progress);
    free(l);
    return status;
}
