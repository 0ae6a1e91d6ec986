/* The launcher's words. */
#include "tell.h"

#include <stdio.h>

#include "pipetrain/log.h"

/* " on host 1 (a), 2 (b)"; cut, where there are many. Returns `text`. */
static const char *describe(const pt_store_hosts *hosts, char *text, size_t size)
{
    size_t used = 0;
    *text = 0;
    for (int i = 0; i < hosts->n && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s %lld (%s)", i > 0 ? "," : " on host",
                                 (long long)hosts->list[i].number, hosts->list[i].name);
    return text;
}

void pt_tell_training(const pt_progress *now, const pt_store_hosts *hosts)
{
    char where[256];
    pt_log(PT_LOG_INFO, "launcher: launch %lld trains%s; %lld of %lld steps are done",
           (long long)now->launch, describe(hosts, where, sizeof where), (long long)now->step,
           (long long)now->total);
}

void pt_tell_end(const pt_launch_options *o, const pt_ending *ending, const pt_verdict *v)
{
    char how[256], step[64] = "no step is committed";
    if (ending->step >= 0)
        snprintf(step, sizeof step, "step %lld is committed", (long long)ending->step);
    pt_policy_describe(ending, how, sizeof how);
    long long launches = (long long)pt_store_launches(o->checkpoint);
    if (v->restart)
        pt_log(PT_LOG_WARNING,
               "launcher: launch %lld %s; %s; restart %lld of %lld without a new one, %s%.0f s",
               launches, how, step, (long long)v->record.failures, (long long)o->restarts,
               v->delay_s > 0 ? "in " : "after ", v->delay_s);
    else if (v->gave_up)
        pt_log(PT_LOG_ERROR,
               "launcher: launch %lld %s; %s; %lld restarts without a new one are used up "
               "(--restarts): gives up",
               launches, how, step, (long long)o->restarts);
    else if (v->code == PT_EXIT_STOPPED && !ending->has_begun)
        pt_log(PT_LOG_INFO,
               "launcher: stopped before it trained; %s; the same command line goes on", step);
    else if (v->code == PT_EXIT_STOPPED && ending->code != PT_EXIT_STOPPED)
        pt_log(
            PT_LOG_WARNING,
            "launcher: launch %lld %s before it could stop with a checkpoint; %s; the same command "
            "line goes on from there",
            launches, how, step);
    else if (v->code == PT_EXIT_STOPPED)
        pt_log(PT_LOG_INFO, "launcher: stopped; %s; the same command line goes on from there",
               step);
    else if (ending->wish != PT_WISH_GO_ON && v->code != PT_EXIT_DONE)
        pt_log(PT_LOG_INFO, "launcher: ended; %s", step);
}
