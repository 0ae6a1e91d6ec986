/* The compute actions of one span.
 *
 * The three schedules are one recipe with two numbers. A list is cut into blocks that drain; in
 * each block a rank first runs `warm_up` forwards, then a backward and a forward by turns, then the
 * backwards that are left. With d = P-1-s stages behind stage s:
 *
 *             block      warm_up
 *   gpipe     a step     all of it
 *   1f1b      a step     d + 1
 *   async     the span   d + 1 + k
 *
 * Backwards run in micro-batch order, always: gradients are added up in that order, so that the sum
 * has the same bits at any number of stages. The UPDATE follows the backward that ends a step.
 *
 * Staleness of the forward of micro-batch m, when B backwards of the span are finished: the updates
 * still to come before m's own backward, which are the ends of steps in [B, m). Full steps end at
 * every M-th micro-batch, and the ragged last step ends at N-1 >= m, which is outside; so it is
 * ⌊m/M⌋ - ⌊B/M⌋. In a block of one step that is 0. */
#include <assert.h>

#include "internal.h"

typedef struct writer {
    const pt_schedule_spec *spec;
    pt_action_list *list;
    int forwards, backwards; /* finished, of the span */
} writer;

static void add(writer *w, pt_action_kind kind, int micro_batch, int staleness)
{
    w->list->actions[w->list->n++] = (pt_action){.kind = (uint8_t)kind,
                                                 .micro_batch = micro_batch,
                                                 .step = micro_batch / w->spec->per_step,
                                                 .staleness = staleness,
                                                 .peer = -1};
}

static void add_forward(writer *w)
{
    int m = w->forwards++, per_step = w->spec->per_step;
    add(w, PT_FORWARD, m, m / per_step - w->backwards / per_step);
}

static void add_backward(writer *w)
{
    int m = w->backwards++;
    add(w, PT_BACKWARD_INPUT, m, 0);
    add(w, PT_BACKWARD_WEIGHT, m, 0);
    if (!pt_schedule_ends_step(w->spec, m))
        return;
    if (w->spec->clip)
        add(w, PT_CLIP, m, 0);
    add(w, PT_UPDATE, m, 0);
}

/* One block: the micro-batches up to, but not including, `end`. */
static void add_block(writer *w, int end, int64_t warm_up)
{
    for (int64_t i = 0; i < warm_up && w->forwards < end; i++)
        add_forward(w);
    while (w->backwards < end) {
        add_backward(w);
        if (w->forwards < end)
            add_forward(w);
    }
}

/* `block` micro-batches between two drains, at most. */
static pt_status generate(const pt_schedule_spec *spec, pt_schedule *schedule, int block,
                          int64_t (*warm_up)(const pt_schedule_spec *, int depth), pt_error *err)
{
    int n = spec->micro_batches;
    int length = 3 * n + pt_schedule_steps(spec) * (spec->clip ? 2 : 1);
    for (int rank = 0; rank < spec->stages; rank++) {
        writer w = {.spec = spec, .list = &schedule->ranks[rank]};
        PT_TRY(pt_action_list_reserve(w.list, length, err));
        while (w.backwards < n) {
            int left = n - w.backwards;
            add_block(&w, w.backwards + (left < block ? left : block),
                      warm_up(spec, spec->stages - 1 - rank));
        }
        assert(w.list->n == length);
    }
    return PT_OK;
}

static int64_t warm_up_all(const pt_schedule_spec *spec, int depth)
{
    (void)depth;
    return spec->per_step;
}

static int64_t warm_up_depth(const pt_schedule_spec *spec, int depth)
{
    /* in_flight is per link: k more on every stage alike would leave the round trip between
     * neighbours as it is and hide nothing. It is 0 in a synchronous spec. */
    return depth * (1 + (int64_t)spec->in_flight) + 1;
}

pt_status pt_generate_gpipe(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err)
{
    return generate(spec, schedule, spec->per_step, warm_up_all, err);
}

pt_status pt_generate_1f1b(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err)
{
    return generate(spec, schedule, spec->per_step, warm_up_depth, err);
}

pt_status pt_generate_async(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err)
{
    return generate(spec, schedule, spec->micro_batches, warm_up_depth, err);
}
