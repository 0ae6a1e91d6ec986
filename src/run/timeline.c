/* --timing and --trace: every micro-batch of every rank on rank 0's clock.
 *
 * Timings stay on their ranks during an epoch and are gathered at its end, so that measuring costs
 * a few stores a micro-batch. Times are µs since training began. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/clock.h"
#include "reporter.h"

struct pt_timeline {
    pt_run *run;
    FILE *csv, *trace; /* rank 0 */
    int64_t origin_ns; /* rank 0's clock when training began */
    int64_t offset_ns; /* what to add to this rank's clock to get rank 0's */
    pt_timing *all;    /* rank 0: one epoch of every rank */
    pt_timing *mine;
    size_t *counts;
};

static const char CSV_HEAD[] =
    "rank,stage,epoch,step,micro_batch,samples,version,staleness,fwd_start_us,fwd_us,bwd_start_us,"
    "bwd_us,update_start_us,update_us,recv_act_wait_us,recv_grad_wait_us,send_wait_us,"
    "weight_start_us,weight_us\n";

static const char TRACE_TAIL[] = "\n]}\n";

static pt_status open_file(const char *option, const char *path, FILE **ret_file, pt_error *err)
{
    *ret_file = path ? fopen(path, "w") : NULL;
    if (path && !*ret_file)
        return pt_fail(err, PT_EINPUT, "%s: cannot write %s: %s", option, path, strerror(errno));
    return PT_OK;
}

/* The file is whole whenever the run is interrupted: what comes next is written over the tail. Not
 * where that cannot be done, as in a pipe. */
static void end_for_now(FILE *trace)
{
    off_t at = ftello(trace);
    if (at < 0)
        return;
    fputs(TRACE_TAIL, trace);
    fseeko(trace, at, SEEK_SET); /* flushes */
}

static pt_status open_files(pt_timeline *t, pt_error *err)
{
    const pt_settings *s = t->run->settings;
    PT_TRY(open_file("--timing", s->timing, &t->csv, err));
    PT_TRY(open_file("--trace", s->trace, &t->trace, err));
    if (t->csv)
        fputs(CSV_HEAD, t->csv);
    if (!t->trace)
        return PT_OK;
    fputs("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [", t->trace);
    for (int i = 0; i < t->run->stages; i++)
        fprintf(t->trace,
                "%s\n{\"name\": \"process_name\", \"ph\": \"M\", \"pid\": %d, \"args\": {\"name\": "
                "\"stage %d\"}}",
                i ? "," : "", i, i);
    end_for_now(t->trace);
    return PT_OK;
}

static pt_status allocate(pt_timeline *t, pt_error *err)
{
    size_t n = (size_t)pt_epoch_micro_batches(&t->run->epoch_plan) * (size_t)t->run->chunks;
    size_t stages = (size_t)t->run->stages;
    t->mine = calloc(n, sizeof *t->mine);
    t->counts = calloc(stages, sizeof *t->counts);
    t->all = t->run->rank == 0 ? calloc(n * stages, sizeof *t->all) : NULL;
    if (!t->mine || !t->counts || (t->run->rank == 0 && !t->all))
        return pt_fail(err, PT_ENOMEM, "no memory for the timings of %zu micro-batches", n);
    return PT_OK;
}

pt_status pt_timeline_open(pt_run *run, pt_timeline **ret_timeline, pt_error *err)
{
    pt_timeline *t = calloc(1, sizeof *t);
    if (!t)
        return pt_fail(err, PT_ENOMEM, "no memory for a timeline");
    t->run = run;
    pt_status status = allocate(t, err);
    if (status == PT_OK && run->rank == 0)
        status = open_files(t, err);
    if (status != PT_OK) {
        pt_timeline_close(t);
        return status;
    }
    *ret_timeline = t;
    return PT_OK;
}

pt_status pt_timeline_join(pt_timeline *t, pt_error *err)
{
    PT_TRY(pt_world_clock_offset(t->run->world, &t->offset_ns, err));
    t->origin_ns = pt_clock_ns();
    return pt_world_broadcast(t->run->world, PT_FOR_METRICS, /*root=*/0, &t->origin_ns,
                              sizeof t->origin_ns, err);
}

/* From this rank's clock to µs since the origin, kept in ns. A 0 means that nothing happened. */
static void shift(const pt_timeline *t, int64_t *start_ns)
{
    if (*start_ns)
        *start_ns += t->offset_ns - t->origin_ns;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

/* An interval, or two empty fields where nothing happened. */
static void csv_interval(FILE *csv, int64_t start_ns, int64_t ns)
{
    if (start_ns)
        fprintf(csv, ",%.3f,%.3f", (double)start_ns / 1e3, (double)ns / 1e3);
    else
        fputs(",,", csv);
}

static void csv_row(const pt_timeline *t, int rank, const pt_timing *m)
{
    int stage = m->chunk * t->run->stages + rank; /* counted from the model's first layer */
    fprintf(t->csv, "%d,%d,%d,%d,%d,%d,%lld,%d", rank, stage, m->epoch, m->step, m->micro_batch,
            m->samples, (long long)m->version, m->staleness);
    csv_interval(t->csv, m->forward_start, m->forward_ns);
    csv_interval(t->csv, m->backward_start, m->backward_ns);
    csv_interval(t->csv, m->update_start, m->update_ns);
    fprintf(t->csv, ",%.3f,%.3f,%.3f", (double)m->recv_act_ns / 1e3, (double)m->recv_grad_ns / 1e3,
            (double)m->send_ns / 1e3);
    csv_interval(t->csv, m->weight_start, m->weight_ns);
    fputc('\n', t->csv);
}

static void trace_event(pt_timeline *t, const char *name, int rank, const pt_timing *m,
                        int64_t start_ns, int64_t ns)
{
    if (!start_ns)
        return;
    fprintf(t->trace,
            ",\n{\"name\": \"%s %d\", \"cat\": \"%s\", \"ph\": \"X\", \"pid\": %d, \"tid\": 0, "
            "\"ts\": %.3f, \"dur\": %.3f, \"args\": {\"epoch\": %d, \"step\": %d, \"chunk\": %d, "
            "\"version\": %lld, \"staleness\": %d}}",
            name, m->micro_batch, name, rank, (double)start_ns / 1e3, (double)ns / 1e3, m->epoch,
            m->step, m->chunk, (long long)m->version, m->staleness);
}

static void write_rank(pt_timeline *t, int rank, const pt_timing *timings, int n)
{
    for (int i = 0; i < n; i++) {
        const pt_timing *m = &timings[i];
        if (t->csv)
            csv_row(t, rank, m);
        if (!t->trace)
            continue;
        trace_event(t, "forward", rank, m, m->forward_start, m->forward_ns);
        trace_event(t, "backward", rank, m, m->backward_start, m->backward_ns);
        trace_event(t, "weight", rank, m, m->weight_start, m->weight_ns);
        trace_event(t, "update", rank, m, m->update_start, m->update_ns);
    }
}

pt_status pt_timeline_add(pt_timeline *t, pt_error *err)
{
    int n = 0;
    const pt_timing *timings = pt_engine_timings(t->run->engine, &n);
    for (int i = 0; i < n; i++) {
        t->mine[i] = timings[i];
        shift(t, &t->mine[i].forward_start);
        shift(t, &t->mine[i].backward_start);
        shift(t, &t->mine[i].weight_start);
        shift(t, &t->mine[i].update_start);
    }
    /* Every rank has had the same micro-batches. */
    for (int r = 0; r < t->run->stages; r++)
        t->counts[r] = (size_t)n * sizeof *timings;
    PT_TRY(pt_world_gather(t->run->world, PT_FOR_METRICS, /*root=*/0, t->mine, t->counts[0],
                           t->counts, t->all, err));
    for (int r = 0; r < t->run->stages && t->run->rank == 0; r++)
        write_rank(t, r, t->all + (size_t)r * (size_t)n, n);
    if (t->trace)
        end_for_now(t->trace);
    return PT_OK;
}

static pt_status end_file(FILE **file, const char *option, const char *path, pt_error *err)
{
    if (!*file)
        return PT_OK;
    bool bad = ferror(*file);
    bad |= fclose(*file) != 0;
    *file = NULL;
    return bad ? pt_fail(err, PT_EIO, "%s: cannot write %s: %s", option, path, strerror(errno))
               : PT_OK;
}

pt_status pt_timeline_end(pt_timeline *t, pt_error *err)
{
    const pt_settings *s = t->run->settings;
    if (t->trace)
        fputs(TRACE_TAIL, t->trace);
    pt_status csv = end_file(&t->csv, "--timing", s->timing, err);
    pt_status trace = end_file(&t->trace, "--trace", s->trace, err);
    return csv != PT_OK ? csv : trace;
}

void pt_timeline_close(pt_timeline *t)
{
    if (!t)
        return;
    if (t->csv)
        fclose(t->csv);
    if (t->trace)
        fclose(t->trace);
    free(t->all);
    free(t->mine);
    free(t->counts);
    free(t);
}
