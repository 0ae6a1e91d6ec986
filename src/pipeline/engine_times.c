/* What the timings of a pass add up to.
 *
 *   first action                                                          last action
 *   │ fill │◄──────────────── window ────────────────────►│ drain │
 *   F F F F B F B F B …                              … F B   B B B
 *           └ first backward                           └ end of the last forward
 *
 * The window is what a bubble is measured in when no flush exists; a synchronous schedule pays for
 * fill and drain in every step, so its window is the whole pass. */
#include "engine_internal.h"

static int64_t overlap(int64_t start, int64_t length, int64_t from, int64_t to)
{
    int64_t end = start + length;
    int64_t a = start > from ? start : from, b = end < to ? end : to;
    return b > a ? b - a : 0;
}

static int64_t busy_within(const pt_timing *timings, int n, int64_t from, int64_t to)
{
    int64_t busy = 0;
    for (int i = 0; i < n; i++) {
        const pt_timing *t = &timings[i];
        busy += overlap(t->forward_start, t->forward_ns, from, to);
        busy += overlap(t->backward_start, t->backward_ns, from, to);
        busy += overlap(t->weight_start, t->weight_ns, from, to);
        busy += overlap(t->update_start, t->update_ns, from, to);
    }
    return busy;
}

void pt_timings_sum(const pt_timing *timings, int n, bool synchronous, int64_t start, int64_t end,
                    pt_pass_result *result)
{
    int64_t first_backward = 0, last_forward = 0;
    for (int i = 0; i < n; i++) {
        const pt_timing *t = &timings[i];
        int64_t forward_end = t->forward_start + t->forward_ns;
        if (t->backward_start && (!first_backward || t->backward_start < first_backward))
            first_backward = t->backward_start;
        last_forward = forward_end > last_forward ? forward_end : last_forward;
        result->staleness_sum += t->staleness;
        result->forwards++;
        if (t->staleness > result->staleness_max)
            result->staleness_max = t->staleness;
    }
    result->elapsed_ns += end - start;
    result->busy_ns += busy_within(timings, n, start, end);
    int64_t from = synchronous ? start : first_backward;
    int64_t to = synchronous ? end : last_forward;
    if (to > from) {
        result->window_ns += to - from;
        result->window_busy_ns += busy_within(timings, n, from, to);
    }
}
