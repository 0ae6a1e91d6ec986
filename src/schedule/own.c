/* Schedules from lists of the user's own, and lists from schedules.
 *
 * A list has the three actions of every micro-batch and chunk and nothing else. What follows from
 * their order is put in here: the steps, a CLIP and an UPDATE behind the last weight gradient of
 * each, and the
 * staleness of every forward, which is what makes such a schedule synchronous or not. */
#include <stdlib.h>

#include "internal.h"
#include "own.h"

int pt_own_lists_stages(const pt_own_lists *own)
{
    return own->stages;
}

int pt_own_lists_micro_batches(const pt_own_lists *own)
{
    return own->micro_batches;
}

int pt_own_lists_chunks(const pt_own_lists *own)
{
    return own->chunks;
}

typedef struct builder {
    const pt_schedule_spec *spec;
    pt_action_list *list;
    int *forward_at,
        *version; /* per micro-batch and chunk: index of its FORWARD, and the updates before it */
    int updates;
    int ended; /* chunks that have finished the step */
    bool late; /* a forward was older than its backward */
} builder;

static void add(builder *b, const pt_action *own, pt_action_kind kind, int micro_batch)
{
    bool of_step = kind == PT_CLIP || kind == PT_UPDATE;
    b->list->actions[b->list->n++] = (pt_action){.kind = (uint8_t)kind,
                                                 .chunk = of_step ? 0 : own->chunk,
                                                 .micro_batch = micro_batch,
                                                 .step = micro_batch / b->spec->per_step,
                                                 .peer = -1,
                                                 .line = own->line};
}

static void copy_action(builder *b, const pt_action *own, int micro_batch)
{
    int unit = micro_batch * b->spec->chunks + own->chunk, forward = b->forward_at[unit];
    add(b, own, (pt_action_kind)own->kind, micro_batch);
    if (own->kind == PT_FORWARD) {
        b->forward_at[unit] = b->list->n - 1;
        b->version[unit] = b->updates;
    } else if (own->kind == PT_BACKWARD_INPUT && forward >= 0) {
        int staleness = b->updates - b->version[unit];
        b->list->actions[forward].staleness = staleness;
        b->late |= staleness > 0;
    } else if (own->kind == PT_BACKWARD_WEIGHT && pt_schedule_ends_step(b->spec, micro_batch) &&
               ++b->ended == b->spec->chunks) {
        b->ended = 0;
        if (b->spec->clip)
            add(b, own, PT_CLIP, micro_batch);
        add(b, own, PT_UPDATE, micro_batch);
        b->updates++;
    }
}

/* The micro-batches from `base` on, `count` of them; the list may know more. */
static void copy_block(builder *b, const pt_action_list *own, int base, int count)
{
    for (int i = 0; i < own->n; i++)
        if (own->actions[i].micro_batch < count)
            copy_action(b, &own->actions[i], base + own->actions[i].micro_batch);
}

static pt_status copy_rank(const pt_own_lists *own, int rank, pt_schedule *schedule, bool *late,
                           pt_error *err)
{
    const pt_schedule_spec *spec = &schedule->spec;
    int n = spec->micro_batches, units = n * spec->chunks;
    int block = own->micro_batches < n ? own->micro_batches : n;
    builder b = {.spec = spec, .list = &schedule->ranks[rank]};
    PT_TRY(pt_action_list_reserve(b.list, 3 * units + 2 * pt_schedule_steps(spec), err));
    b.forward_at = malloc((size_t)units * sizeof *b.forward_at);
    b.version = calloc((size_t)units, sizeof *b.version);
    pt_status status = PT_OK;
    if (!b.forward_at || !b.version) {
        status = pt_fail(err, PT_ENOMEM, "no memory for a schedule of %d micro-batches", n);
        goto out;
    }
    for (int unit = 0; unit < units; unit++)
        b.forward_at[unit] = -1;
    for (int base = 0; base < n; base += block)
        copy_block(&b, &own->ranks[rank], base, n - base < block ? n - base : block);
    *late |= b.late;
out:
    free(b.forward_at);
    free(b.version);
    return status;
}

static pt_status check_sizes(const pt_own_lists *own, const pt_schedule_spec *spec, pt_error *err)
{
    if (own->stages != spec->stages)
        return pt_fail(err, PT_EINPUT,
                       "%s has lists for %d rank%s, and this run has %d: start as many ranks, or "
                       "write a list for each",
                       own->file, own->stages, own->stages == 1 ? "" : "s", spec->stages);
    if (own->micro_batches < spec->micro_batches && own->micro_batches != spec->per_step)
        return pt_fail(err, PT_EINPUT,
                       "%s has %d micro-batches a rank; it must have those of one step, which are "
                       "%d, or those of a whole epoch, which are %d",
                       own->file, own->micro_batches, spec->per_step, spec->micro_batches);
    return PT_OK;
}

pt_status pt_own_lists_generate(const pt_own_lists *own, const pt_schedule_spec *spec,
                                pt_schedule **ret_schedule, pt_error *err)
{
    pt_schedule_spec named = *spec;
    named.name = own->file;
    named.chunks = own->chunks;
    PT_TRY(pt_schedule_check_counts(&named, err));
    PT_TRY(check_sizes(own, &named, err));
    pt_schedule *schedule;
    bool late = false;
    PT_TRY(pt_schedule_new(&named, /*synchronous=*/true, &schedule, err));
    for (int rank = 0; rank < spec->stages; rank++) {
        pt_status status = copy_rank(own, rank, schedule, &late, err);
        if (status != PT_OK) {
            pt_schedule_free(schedule);
            return status;
        }
    }
    schedule->synchronous = !late;
    *ret_schedule = schedule;
    return PT_OK;
}

pt_status pt_own_lists_synchronous(const pt_own_lists *own, int per_step, bool *ret_synchronous,
                                   pt_error *err)
{
    const pt_schedule_spec spec = {
        .stages = own->stages, .micro_batches = own->micro_batches, .per_step = per_step};
    pt_schedule *schedule;
    PT_TRY(pt_own_lists_generate(own, &spec, &schedule, err));
    *ret_synchronous = schedule->synchronous;
    pt_schedule_free(schedule);
    return PT_OK;
}

pt_status pt_schedule_write(const pt_schedule *schedule, FILE *out, pt_error *err)
{
    bool chunks = schedule->spec.chunks > 1;
    fputs(chunks ? "rank,action,micro_batch,chunk\n" : "rank,action,micro_batch\n", out);
    for (int rank = 0; rank < schedule->spec.stages; rank++) {
        const pt_action_list *list = &schedule->ranks[rank];
        for (int i = 0; i < list->n; i++) {
            const pt_action *a = &list->actions[i];
            if (a->kind > PT_BACKWARD_WEIGHT)
                continue;
            fprintf(out, "%d,%s,%d", rank, pt_action_name((pt_action_kind)a->kind), a->micro_batch);
            fprintf(out, chunks ? ",%d\n" : "\n", a->chunk);
        }
    }
    return ferror(out) ? pt_fail(err, PT_EIO, "the lists of a schedule could not be written")
                       : PT_OK;
}
