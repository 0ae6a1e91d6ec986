/* The compute actions of one span.
 *
 * The schedules are one recipe with three numbers. A list is cut into blocks that drain; in each
 * block a rank first runs `warm_up` forwards, then a backward and a forward by turns, then the
 * backwards that are left. The weight half of a backward follows its input half `delay` backwards
 * later, and what is left of it ends the block. With d = P-1-s stages behind stage s:
 *
 *             block      warm_up        delay
 *   gpipe     a step     all of it      0
 *   1f1b      a step     d + 1          0
 *   zb-h1     a step     d + 1          s
 *   async     the span   d + 1 + k      0
 *
 * zb-h1 is the memory-efficient schedule of Qi et al., "Zero Bubble Pipeline Parallelism" (ICLR
 * 2024, section 2.1, figure 3 above): 1f1b, with W starting so much later on each stage that all
 * stages hold the same number of micro-batches. 1f1b holds d+1, one W that waits holds one more, so
 * d+1+s = P: no more than 1f1b has on the first stage. What it gains, with P, M, F, B, W as in the
 * paper and delay >= 0 cut at M-1:
 *
 *   The last stage never waits once it has begun, at (P-1)F. It ends its last B at
 *   (P-1)F + M(F+B) + (M-1-delay)W; the gradient needs (P-1)B more to come through the first stage,
 *   whose own last W then ends the step. So the step takes M(F+B+W) + (P-1)(F+B) - delay W, with
 *   delay = min(P, M) - 1: for M >= P a bubble of (P-1)(F+B-W).
 *
 * That is for W <= F. In the steady state the first stage falls behind the gradients that come, by
 * W a micro-batch for P-1 of them, and catches up by F a micro-batch when no forwards are left;
 * with W > F it never catches up, and the bubble is the (P-1)B of the fill. With W > B the last
 * stage ends after the first: then the step takes that much longer when no other follows it.
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
    int forwards, backwards, weights; /* finished, of the span */
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

static void add_weight(writer *w)
{
    int m = w->weights++;
    add(w, PT_BACKWARD_WEIGHT, m, 0);
    if (!pt_schedule_ends_step(w->spec, m))
        return;
    if (w->spec->clip)
        add(w, PT_CLIP, m, 0);
    add(w, PT_UPDATE, m, 0);
}

/* One block: the micro-batches up to, but not including, `end`. */
static void add_block(writer *w, int end, int64_t warm_up, int delay)
{
    for (int64_t i = 0; i < warm_up && w->forwards < end; i++)
        add_forward(w);
    while (w->backwards < end) {
        add(w, PT_BACKWARD_INPUT, w->backwards++, 0);
        if (w->backwards - w->weights > delay)
            add_weight(w);
        if (w->forwards < end)
            add_forward(w);
    }
    while (w->weights < end)
        add_weight(w);
}

typedef struct recipe {
    int block; /* micro-batches between two drains, at most */
    int64_t (*warm_up)(const pt_schedule_spec *spec, int depth);
    bool delays;
} recipe;

static pt_status generate(const pt_schedule_spec *spec, pt_schedule *schedule, const recipe *r,
                          pt_error *err)
{
    int n = spec->micro_batches;
    int length = 3 * n + pt_schedule_steps(spec) * (spec->clip ? 2 : 1);
    for (int rank = 0; rank < spec->stages; rank++) {
        writer w = {.spec = spec, .list = &schedule->ranks[rank]};
        PT_TRY(pt_action_list_reserve(w.list, length, err));
        while (w.backwards < n) {
            int left = n - w.backwards;
            add_block(&w, w.backwards + (left < r->block ? left : r->block),
                      r->warm_up(spec, spec->stages - 1 - rank), r->delays ? rank : 0);
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
    return generate(spec, schedule, &(recipe){spec->per_step, warm_up_all, false}, err);
}

pt_status pt_generate_1f1b(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err)
{
    return generate(spec, schedule, &(recipe){spec->per_step, warm_up_depth, false}, err);
}

pt_status pt_generate_zb_h1(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err)
{
    return generate(spec, schedule, &(recipe){spec->per_step, warm_up_depth, true}, err);
}

pt_status pt_generate_async(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err)
{
    return generate(spec, schedule, &(recipe){spec->micro_batches, warm_up_depth, false}, err);
}
