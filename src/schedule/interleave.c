/* Several chunks on each rank: Megatron's interleaved 1F1B (Narayanan et al., "Efficient
 * large-scale language model training on GPU clusters using Megatron-LM", SC 2021, section 2.2.2),
 * and inference through chunks.
 *
 * The units of a list are chunks of micro-batches. They come in groups: P micro-batches through the
 * first chunk, the same P through the second, and so on; backwards take the chunks from the last to
 * the first. The first rank goes on to chunk c+1 just when the first micro-batch of the group comes
 * back from the last rank's chunk c (a and b are chunks):
 *
 *       time   0                   5                   10                  15                  20
 *     rank 0 | 0Fa 1Fa 0Fb 1Fb 2Fa 0Bb 0Wb 3Fa 1Bb 1Wb 2Fb 0Ba 0Wa 3Fb 1Ba 1Wa   . 2Bb 2Wb   . …
 *     rank 1 |   . 0Fa 1Fa 0Fb 0Bb 0Wb 1Fb 1Bb 1Wb 2Fa 0Ba 0Wa 3Fa 1Ba 1Wa 2Fb 2Bb 2Wb 3Fb 3Bb …
 *
 * A rank runs w = 2(P-1-r) + (V-1)P units forwards and then a forward and a backward by turns; so
 * it holds min(w + 1, M V) chunks of micro-batches, on the first rank PV + P - 1 instead of P. In a
 * step of one group, M = P, all forwards come first and every rank holds PV (both as in the paper's
 * code).
 *
 * With F, B, W of all chunks of a rank together, the bubble of a step is (P-1)(F + B)/V: fill and
 * drain are P-1 units long as in 1f1b, and these units are shorter. A gradient leaves before its W;
 * the paper's backward is one pass, so that B stands for all of it there. That is for W <= F, as in
 * zb-h1, or M = P. With W > F (and V > 1) the first rank falls behind the gradients that come, by
 * W - F a rank, and ((P-1)(W-F) - (B+W))/V comes on top where that is above 0.
 *
 * A step whose micro-batches do not fill their last group is that of a full one without those that
 * are missing. What is left of a list that comes to its end does so, with as many slots: every
 * message waits for what it waited for before, or for something that came earlier still. */
#include <assert.h>

#include "internal.h"

typedef struct writer {
    const pt_schedule_spec *spec;
    pt_action_list *list;
    int first, n; /* the step's micro-batches: n from `first` on */
} writer;

/* Micro-batches from 0, groups filled. */
static int in_groups(const pt_schedule_spec *spec, int n)
{
    return (n + spec->stages - 1) / spec->stages * spec->stages;
}

static void add(writer *w, pt_action_kind kind, int micro_batch, int chunk)
{
    w->list->actions[w->list->n++] = (pt_action){.kind = (uint8_t)kind,
                                                 .chunk = (uint8_t)chunk,
                                                 .micro_batch = micro_batch,
                                                 .step = micro_batch / w->spec->per_step,
                                                 .peer = -1};
}

/* Unit k, from 0; nothing where it is of a micro-batch that is missing. */
static void add_unit(writer *w, pt_action_kind kind, int k)
{
    int ranks = w->spec->stages, group = ranks * w->spec->chunks;
    int m = k / group * ranks + k % ranks, chunk = k % group / ranks;
    if (kind == PT_BACKWARD_INPUT)
        chunk = w->spec->chunks - 1 - chunk;
    if (m >= w->n)
        return;
    add(w, kind, w->first + m, chunk);
    if (kind == PT_BACKWARD_INPUT)
        add(w, PT_BACKWARD_WEIGHT, w->first + m, chunk);
}

static int warm_up(const pt_schedule_spec *spec, int rank, int units)
{
    int w = 2 * (spec->stages - 1 - rank) + (spec->chunks - 1) * spec->stages + 1;
    return spec->per_step == spec->stages || w > units ? units : w;
}

static void add_step(writer *w, int rank)
{
    int units = in_groups(w->spec, w->n) * w->spec->chunks;
    int warm = warm_up(w->spec, rank, units), last = w->first + w->n - 1;
    for (int k = 0; k < warm; k++)
        add_unit(w, PT_FORWARD, k);
    for (int k = 0; k < units; k++) {
        add_unit(w, PT_BACKWARD_INPUT, k);
        if (warm + k < units)
            add_unit(w, PT_FORWARD, warm + k);
    }
    if (w->spec->clip)
        add(w, PT_CLIP, last, 0);
    add(w, PT_UPDATE, last, 0);
}

static pt_status check_groups(const pt_schedule_spec *spec, pt_error *err)
{
    int below = spec->per_step - spec->per_step % spec->stages;
    if (below == spec->per_step)
        return PT_OK;
    char less[32] = "";
    if (below > 0)
        snprintf(less, sizeof less, "--accumulate %d or ", below);
    return pt_fail(err, PT_EINPUT,
                   "schedule '%s': a step of %d micro-batches does not divide into groups of %d, "
                   "one for each rank; write %s--accumulate %lld, or --schedule 1f1b",
                   spec->name, spec->per_step, spec->stages, less, (long long)below + spec->stages);
}

pt_status pt_generate_interleaved(const pt_schedule_spec *spec, pt_schedule *schedule,
                                  pt_error *err)
{
    if (spec->chunks == 1)
        return pt_generate_1f1b(spec, schedule, err);
    PT_TRY(check_groups(spec, err));
    int n = spec->micro_batches;
    int length = 3 * n * spec->chunks + pt_schedule_steps(spec) * (spec->clip ? 2 : 1);
    for (int rank = 0; rank < spec->stages; rank++) {
        writer w = {.spec = spec, .list = &schedule->ranks[rank]};
        PT_TRY(pt_action_list_reserve(w.list, length, err));
        for (; w.first < n; w.first += w.n) {
            w.n = n - w.first < spec->per_step ? n - w.first : spec->per_step;
            add_step(&w, rank);
        }
        assert(w.list->n == length);
    }
    return PT_OK;
}

pt_status pt_generate_infer(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err)
{
    for (int rank = 0; rank < spec->stages; rank++) {
        writer w = {.spec = spec, .list = &schedule->ranks[rank], .n = spec->micro_batches};
        PT_TRY(pt_action_list_reserve(w.list, w.n * spec->chunks, err));
        for (int k = 0; k < in_groups(spec, w.n) * spec->chunks; k++)
            add_unit(&w, PT_INFER, k);
    }
    return PT_OK;
}
