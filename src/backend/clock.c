/* The clock backend: layers take the time that they are told and compute nothing, so that schedules
 * run for real, with many ranks on a small machine, and show what the engine and the links cost.
 *
 * It behaves like a device. A call returns at once and moves the end of its lane:
 *
 *   asked here        ▼F   ▼B ▼W                 ▼F
 *   compute lane      ├─ F ─┤── B ──┤── W ──┤  . . ├─ F ─┤
 *                                   └ an event recorded behind B is reached here
 *
 * Work begins where the lane ends, or now if that is past, so the ends of calls are exact and no
 * lateness adds up, however late the host wakes. A sleep inside the call would be simpler, and
 * would measure itself: MPI moves nothing while its process sleeps. So messages move as on a GPU,
 * and what is measured is what no device can hide: the way of a message from the end of one rank's
 * work to the beginning of another's.
 *
 * Memory, layouts and what a backward reads are those of ref, so memory and messages have their
 * real sizes. All calls are made and no value is aliased: each layer must get the chance to take
 * its time. Messages are copied when they are asked for and take no time on their lane. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "pipetrain/clock.h"
#include "rows.h"

enum {
    /* Waiting costs a processor that others need. While the compute lane is busy nothing is urgent;
     * once it is idle a message is, the more so the shorter the wait has been. */
    BUSY_NAP_NS = 1000 * 1000,
    SHORTEST_NAP_NS = 40 * 1000,
    LONGEST_NAP_NS = 250 * 1000,
    NAPS_PER_WAIT = 8, /* a nap is so small a part of the wait so far */
};
static const int64_t NS_PER_S = 1000000000;

struct pt_event {
    int64_t at_ns; /* when it is reached; 0: never recorded */
    pt_event *next, **before;
};

/* ---- opening ----------------------------------------------------------------------------------
 */

static pt_status clock_open(const pt_backend_config *config, pt_backend **ret_backend,
                            pt_error *err)
{
    PT_TRY(pt_cpu_check_config(config, pt_backend_clock.name, err));
    if (!config->layer_times)
        return pt_fail(err, PT_EINPUT,
                       "the backend clock must be told how long layers take; write --clock "
                       "FILE.csv, or choose a backend that computes");
    pt_clock_backend *clock = calloc(1, sizeof *clock);
    if (!clock)
        return pt_fail(err, PT_ENOMEM, "no memory for the clock backend");
    clock->cpu.base.row = &pt_backend_clock;
    clock->cpu.config = *config;
    clock->times = config->layer_times;
    clock->update_ns = config->update_ns_per_element;
    *ret_backend = &clock->cpu.base;
    return PT_OK;
}

static void clock_close(pt_backend *b)
{
    free(b);
}

static void clock_describe(const pt_backend *b, char *text, size_t size)
{
    (void)b;
    snprintf(text, size,
             "clock: layers take stated times, nothing is computed, losses mean nothing");
}

/* ---- lanes and events -------------------------------------------------------------------------
 */

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void pt_clock_take(pt_backend *b, int64_t ns)
{
    int64_t *end = &((pt_clock_backend *)b)->end_ns[PT_LANE_COMPUTE];
    if (ns > 0)
        *end = later(*end, pt_clock_ns()) + ns;
}

static void sleep_until(int64_t ns)
{
    struct timespec at = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL); /* a signal ends it early */
}

static pt_status clock_event_new(pt_backend *b, pt_event **ret_event, pt_error *err)
{
    pt_clock_backend *clock = (pt_clock_backend *)b;
    pt_event *event = calloc(1, sizeof *event);
    if (!event)
        return pt_fail(err, PT_ENOMEM, "no memory for an event");
    event->next = clock->events;
    event->before = &clock->events;
    if (event->next)
        event->next->before = &event->next;
    clock->events = event;
    *ret_event = event;
    return PT_OK;
}

static void clock_event_free(pt_backend *b, pt_event *event)
{
    (void)b;
    if (!event)
        return;
    *event->before = event->next;
    if (event->next)
        event->next->before = event->before;
    free(event);
}

static pt_status clock_event_record(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err)
{
    (void)err;
    event->at_ns = later(((pt_clock_backend *)b)->end_ns[lane], pt_clock_ns());
    return PT_OK;
}

static pt_status clock_event_wait(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err)
{
    (void)err;
    int64_t *end = &((pt_clock_backend *)b)->end_ns[lane];
    *end = later(*end, event->at_ns);
    return PT_OK;
}

static pt_status clock_event_done(pt_backend *b, pt_event *event, bool *ret_done, pt_error *err)
{
    (void)b;
    (void)err;
    *ret_done = pt_clock_ns() >= event->at_ns;
    return PT_OK;
}

static int64_t clock_event_ns(pt_backend *b, pt_event *event)
{
    (void)b;
    return event->at_ns;
}

pt_status pt_clock_finish(pt_backend *b, pt_error *err)
{
    (void)err;
    int64_t end = 0;
    for (int lane = 0; lane < PT_LANES; lane++)
        end = later(end, ((pt_clock_backend *)b)->end_ns[lane]);
    while (pt_clock_ns() < end)
        sleep_until(end);
    return PT_OK;
}

/* Never sleeps past the next event, behind which a message may be waiting to leave. */
static void clock_pause(pt_backend *b)
{
    const pt_clock_backend *clock = (pt_clock_backend *)b;
    int64_t now = pt_clock_ns(), idle = now - clock->end_ns[PT_LANE_COMPUTE];
    int64_t nap = BUSY_NAP_NS;
    if (idle >= 0) {
        nap = later(idle / NAPS_PER_WAIT, SHORTEST_NAP_NS);
        nap = nap < LONGEST_NAP_NS ? nap : LONGEST_NAP_NS;
    }
    int64_t until = now + nap;
    for (const pt_event *e = clock->events; e; e = e->next)
        if (e->at_ns > now && e->at_ns < until)
            until = e->at_ns;
    sleep_until(until);
}

/* ---- memory -----------------------------------------------------------------------------------
 */

static pt_status clock_transfer(pt_backend *b, void *dst, const void *src, size_t bytes,
                                pt_error *err)
{
    PT_TRY(pt_clock_finish(b, err));
    return pt_cpu_copy(b, dst, src, bytes, err);
}

pt_status pt_clock_copy(pt_backend *b, void *dst, const void *src, size_t bytes, pt_error *err)
{
    (void)b;
    (void)dst;
    (void)src;
    (void)bytes;
    (void)err;
    return PT_OK;
}

const pt_backend_row pt_backend_clock = {
    .name = "clock",
    .help = "computes nothing: layers take the times of --clock",
    .open = clock_open,
    .close = clock_close,
    .reserve = pt_cpu_reserve,
    .dev_new = pt_cpu_dev_new,
    .dev_free = pt_cpu_dev_free,
    .host_new = pt_cpu_host_new,
    .host_free = pt_cpu_host_free,
    .upload = clock_transfer,
    .download = clock_transfer,
    .copy = pt_clock_copy,
    .copy_in = pt_cpu_copy,
    .copy_out = pt_cpu_copy,
    .event_new = clock_event_new,
    .event_free = clock_event_free,
    .event_record = clock_event_record,
    .event_wait = clock_event_wait,
    .event_done = clock_event_done,
    .event_ns = clock_event_ns,
    .pause = clock_pause,
    .finish = pt_clock_finish,
    .plain_layout = pt_clock_plain_layout,
    .layout_free = pt_clock_layout_free,
    .layout_equal = pt_clock_layout_equal,
    .reorder = pt_clock_reorder,
    .supports = pt_clock_supports,
    .plan = pt_clock_plan,
    .build = pt_clock_build,
    .release = pt_clock_release,
    .forward = pt_clock_forward,
    .backward_input = pt_clock_backward_input,
    .backward_weight = pt_clock_backward_weight,
    .loss = pt_clock_loss,
    .add = pt_clock_add,
    .axpby = pt_clock_axpby,
    .sum_of_squares = pt_clock_sum_of_squares,
    .sgd = pt_clock_sgd,
    .adam = pt_clock_adam,
    .mean_squares = pt_clock_mean_squares,
    .gap = pt_clock_gap,
    .look_back = pt_clock_look_back,
    .on_device = false,
    .memory = pt_cpu_memory,
    .describe = clock_describe,
};
