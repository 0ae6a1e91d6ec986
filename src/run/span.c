/* Cuts and spans: what a run decides before anything is opened. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/planner.h"
#include "pipetrain/run.h"
#include "setup.h"

/* How many operations one CPU core does in the time it moves one byte; see planner.h. */
static const double FLOPS_PER_BYTE = 8;

static const char SYNC_SCHEDULE[] = "1f1b"; /* of --sync-epochs */

pt_status pt_run_choose_cut(const pt_partition *partition, int stages, int *begins,
                            bool *ret_planned, pt_error *err)
{
    const pt_graph *graph = &partition->graph;
    const pt_cut *cut = pt_partition_cut(partition, stages);
    if (cut) {
        for (int s = 0; s < stages; s++)
            begins[s] = cut->begins[s];
        *ret_planned = false;
        return PT_OK;
    }
    if (stages > graph->n_nodes)
        return pt_fail(err, PT_EINPUT,
                       "%s: %d stages, but %s has only %d layers; start at most %d ranks",
                       partition->file, stages, partition->name, graph->n_nodes, graph->n_nodes);
    if (stages == 1) {
        begins[0] = 0;
        *ret_planned = false;
        return PT_OK;
    }
    double *cost = calloc((size_t)graph->n_nodes, sizeof *cost);
    if (!cost)
        return pt_fail(err, PT_ENOMEM, "no memory for a plan of %d layers", graph->n_nodes);
    pt_plan_estimate(graph, FLOPS_PER_BYTE, cost);
    pt_status status = pt_plan_balance(cost, graph->n_nodes, stages, begins, err);
    free(cost);
    if (status == PT_OK)
        *ret_planned = true;
    return status;
}

static pt_status prove(pt_schedule *schedule, pt_span *ret_span, pt_error *err)
{
    pt_span span = {.schedule = schedule};
    span.facts = calloc((size_t)pt_schedule_blocks(&schedule->spec), sizeof *span.facts);
    pt_status status = span.facts ? pt_schedule_lower(schedule, err)
                                  : pt_fail(err, PT_ENOMEM, "no memory for a schedule");
    if (status == PT_OK)
        status = pt_schedule_check(schedule, pt_schedule_slots(&schedule->spec), span.facts, err);
    if (status == PT_OK)
        *ret_span = span;
    else
        pt_span_clear(&span);
    return status;
}

pt_status pt_span_new(const pt_schedule_spec *spec, const pt_own_lists *own, pt_span *ret_span,
                      pt_error *err)
{
    pt_schedule *schedule = NULL;
    PT_TRY(own ? pt_own_lists_generate(own, spec, &schedule, err)
               : pt_schedule_generate(spec, &schedule, err));
    return prove(schedule, ret_span, err);
}

pt_status pt_run_plan_sync(pt_run *run, const pt_schedule_spec *spec, pt_error *err)
{
    int64_t epochs = run->settings->sync_epochs;
    pt_schedule_spec sync = *spec;
    if (epochs == 0)
        return PT_OK;
    if (epochs >= run->epochs)
        return pt_fail(err, PT_EINPUT,
                       "--sync-epochs %lld: this run has %lld epoch%s, and none would be "
                       "asynchronous; write fewer, more --epochs, or --schedule %s",
                       (long long)epochs, (long long)run->epochs, run->epochs == 1 ? "" : "s",
                       SYNC_SCHEDULE);
    if (spec->chunks > 1)
        return pt_fail(err, PT_EINPUT,
                       "--sync-epochs: %s has one block of layers on each rank, and the lists of "
                       "%s have %d; leave --sync-epochs out, or give lists without chunks",
                       SYNC_SCHEDULE, run->settings->schedule, spec->chunks);
    sync.name = SYNC_SCHEDULE;
    sync.in_flight = 0;
    sync.micro_batches = (int)pt_epoch_micro_batches(&run->epoch_plan);
    return pt_span_new(&sync, /*own=*/NULL, &run->sync, err);
}

pt_status pt_run_accept_gap(const pt_run *run, pt_error *err)
{
    int64_t every = run->settings->gap_every;
    int64_t steps =
        run->total_steps < run->steps_per_epoch ? run->total_steps : run->steps_per_epoch;
    int64_t most = pt_epoch_micro_batches_of(&run->epoch_plan, steps);
    if (every <= most)
        return PT_OK;
    return pt_fail(
        err, PT_EINPUT,
        "--gap-every %lld: an epoch of this run has %lld micro-batches, so nothing would "
        "be measured; write at most --gap-every %lld",
        (long long)every, (long long)most, (long long)most);
}

static int peak_of(const pt_schedule_rank *facts, pt_run_peak_of what)
{
    switch (what) {
    case PT_PEAK_STASH:
        return facts->stash_peak;
    case PT_PEAK_ALL_STASH:
        return facts->all_stash_peak;
    case PT_PEAK_VERSIONS:
        return facts->versions_peak;
    case PT_PEAK_HELD:
        break;
    }
    return facts->held_peak;
}

int pt_run_peak(const pt_run *run, int chunk, pt_run_peak_of what)
{
    const pt_span *spans[] = {&run->sync, &run->full, &run->last};
    int most = what == PT_PEAK_HELD ? 0 : 1;
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        int n = spans[i]->facts ? peak_of(&spans[i]->facts[pt_run_block(run, chunk)], what) : 0;
        most = n > most ? n : most;
    }
    return most;
}

const char *pt_run_schedule_text(const pt_settings *s, char *text, size_t size)
{
    long long n = (long long)s->sync_epochs;
    if (n > 0)
        snprintf(text, size, "%s for %lld epoch%s, then %s", SYNC_SCHEDULE, n, n == 1 ? "" : "s",
                 s->schedule);
    else
        snprintf(text, size, "%s", s->schedule);
    return text;
}

pt_status pt_run_write_schedule(const pt_run *run, pt_error *err)
{
    const pt_span *span = run->full.schedule ? &run->full : &run->last;
    const char *path = run->settings->schedule_out;
    if (!path)
        return PT_OK;
    FILE *out = fopen(path, "w");
    bool ok = out && pt_schedule_write(span->schedule, out, err) == PT_OK;
    ok = out && fclose(out) == 0 && ok;
    return ok ? PT_OK
              : pt_fail(err, PT_EINPUT, "--schedule-out: cannot write %s: %s", path,
                        strerror(errno));
}

pt_status pt_span_infer(int stages, int chunks, int n, pt_span *ret_span, pt_error *err)
{
    pt_schedule *schedule = NULL;
    PT_TRY(pt_schedule_infer(stages, chunks, n, &schedule, err));
    return prove(schedule, ret_span, err);
}

void pt_span_clear(pt_span *span)
{
    pt_schedule_free(span->schedule);
    free(span->facts);
    *span = (pt_span){0};
}
