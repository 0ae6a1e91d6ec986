/* Comparing times: see the header. */
#include "patience.h"

/* The program says what hangs, and ends by itself when the limit is over: it knows more. */
static const int64_t GRACE_NS = 2000000000;

void pt_patience_start(pt_patience *p, int64_t now_ns)
{
    p->started_ns = now_ns;
    p->suspended_ns = 0;
    p->has_begun = p->has_stepped = false;
}

void pt_patience_see(pt_patience *p, const pt_progress *progress, int64_t now_ns)
{
    if (!progress || (p->has_begun && !pt_progress_differs(&p->last, progress)))
        return;
    p->has_stepped |= progress->median_us > 0 || (p->has_begun && progress->step > p->last.step);
    p->has_begun = true;
    p->last = *progress;
    p->changed_ns = now_ns;
}

static bool is_over(int64_t since_ns, int64_t limit_ns, int64_t now_ns)
{
    return limit_ns > 0 && now_ns - since_ns > limit_ns;
}

bool pt_patience_is_over(const pt_patience *p, int64_t now_ns, pt_cause *ret_cause)
{
    int64_t limit_ns = pt_stall_limit_ns(&p->stall, p->has_stepped ? p->last.median_us : 0);
    int64_t stall_ns = limit_ns > 0 ? limit_ns + GRACE_NS : 0;
    pt_cause cause = PT_CAUSE_ENDED;
    if (p->suspended_ns > 0 && is_over(p->suspended_ns, limit_ns, now_ns))
        cause = PT_CAUSE_SUSPENDED;
    else if (!p->has_stepped && is_over(p->started_ns, p->start_limit_ns, now_ns))
        cause = PT_CAUSE_SLOW_START;
    else if (p->has_stepped && is_over(p->changed_ns, stall_ns, now_ns))
        cause = PT_CAUSE_STALLED;
    if (cause == PT_CAUSE_ENDED)
        return false;
    *ret_cause = cause;
    return true;
}
