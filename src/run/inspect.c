/* --check: every stage is opened in turn, in this one process, and profiled; then the simulator
 * plays the schedule with what was measured. */
#include "pipetrain/inspect.h"

#include <stdlib.h>

#include "clock_times.h"
#include "reporter.h"
#include "settings_rules.h"
#include "setup.h"

enum { GRID_COLUMNS = 100, GRID_MICRO_BATCHES = 12, RANGE_COLUMNS = 30 };

/* What was seen of all ranks, and of all their blocks. */
typedef struct seen {
    stage_card *cards;
    pt_stage_cost *costs;
} seen;

static pt_status look_at_stages(const pt_config *config, const pt_partition *partition, int stages,
                                seen *all, pt_error *err)
{
    for (int s = 0; s < stages; s++) {
        pt_run *run = NULL;
        PT_TRY(pt_run_open_alone(config, partition, stages, s, &run, err));
        all->cards[s] = pt_reporter_card(run);
        for (int c = 0; c < run->chunks; c++)
            all->costs[pt_run_block(run, c)] = run->blocks[c].cost;
        pt_run_close(run);
    }
    return PT_OK;
}

/* The grid shows the beginning of a span: how the pipeline fills, runs, and (where it does)
 * flushes. */
static pt_status draw(const pt_run *run, FILE *out, pt_error *err)
{
    const pt_span *span = run->full.schedule ? &run->full : &run->last;
    pt_schedule_spec spec = span->schedule->spec;
    int few = 2 * spec.per_step > GRID_MICRO_BATCHES ? 2 * spec.per_step : GRID_MICRO_BATCHES;
    pt_span drawn = {0};
    if (spec.micro_batches > few)
        spec.micro_batches = few;
    PT_TRY(pt_span_new(&spec, run->settings->own_lists, &drawn, err));
    pt_status status = pt_schedule_draw(drawn.schedule, GRID_COLUMNS, out, err);
    pt_span_clear(&drawn);
    return status;
}

static double mean_staleness(const pt_run *run, const pt_span *span, int rank)
{
    double sum = 0;
    for (int c = 0; c < run->chunks; c++)
        sum += span->facts[pt_schedule_block(&span->schedule->spec, rank, c)].staleness_mean;
    return sum / run->chunks;
}

static void print_stages(const pt_run *run, const stage_card *cards,
                         const pt_simulated_rank *simulated, const pt_span *span, FILE *out)
{
    /* printf counts bytes: a µ has two, the dots have three. */
    fprintf(out, "\n%5s  %-*s %6s %10s %10s %10s %9s %6s %10s %8s %7s\n", "stage",
            RANGE_COLUMNS + 2, "from … to", "layers", "parameters", "fwd µs", "bwd µs", "MiB",
            "stash", "staleness", "(mean)", "bubble");
    for (int s = 0; s < run->stages; s++) {
        char range[RANGE_TEXT];
        const stage_card *c = &cards[s];
        fprintf(out, "%5d  %s %6d %10lld %9.0f %9.0f %9.1f %6d %10d %8.2f %6.1f%%\n", s,
                pt_reporter_range(run, c, RANGE_COLUMNS, range), c->layers,
                (long long)c->parameters, c->cost.forward,
                c->cost.backward_input + c->cost.backward_weight,
                (double)c->predicted_bytes / (double)(1 << 20), c->stash_peak, c->staleness_max,
                mean_staleness(run, span, s), 100 * simulated[s].bubble);
    }
}

static pt_status predict(const pt_run *run, const seen *all, FILE *out, pt_error *err)
{
    const pt_span *span = run->full.schedule ? &run->full : &run->last;
    double total_us = 0;
    pt_simulated_rank *simulated = calloc((size_t)run->stages, sizeof *simulated);
    if (!simulated)
        return pt_fail(err, PT_ENOMEM, "no memory for %d stages", run->stages);
    pt_status status =
        pt_schedule_simulate(span->schedule, all->costs, pt_schedule_slots(&span->schedule->spec),
                             NULL, NULL, simulated, &total_us, err);
    if (status == PT_OK) {
        int64_t steps = run->full.schedule ? run->steps_per_epoch : run->total_steps;
        print_stages(run, all->cards, simulated, span, out);
        pt_reporter_recompute(run, all->cards, "\nrecompute ", out);
        fprintf(out,
                "\npredicted: %.2f ms a step, %.1f s for %lld steps (stages %s, schedule "
                "simulated, links free)\n",
                total_us / 1e3 / (double)steps, total_us / 1e6, (long long)steps,
                run->clock_costs ? "as stated" : "profiled here one by one");
    }
    free(simulated);
    return status;
}

static pt_status check(const pt_config *config, const pt_partition *partition, int stages,
                       seen *all, FILE *out, pt_error *err)
{
    const pt_settings *s = &config->settings;
    pt_run *run = NULL;
    char chunks[32] = "", schedule[128], rules[256];
    pt_status status = look_at_stages(config, partition, stages, all, err);
    if (status == PT_OK)
        status = pt_run_open_alone(config, partition, stages, /*rank=*/0, &run, err);
    if (status == PT_OK) {
        if (run->chunks > 1)
            snprintf(chunks, sizeof chunks, " of %d chunks", run->chunks);
        pt_rules_describe(config, rules, sizeof rules);
        fprintf(out,
                "%s: %s, predict %s, stash %s%s, %d stages%s (%s), batch %lld = %lld x %lld\n\n",
                partition->name, pt_run_schedule_text(s, schedule, sizeof schedule), s->predict,
                s->stash ? "on" : "off", rules, stages, chunks,
                run->cut_was_planned ? "cut by the planner" : "cut as the file says",
                (long long)s->batch, (long long)s->accumulate, (long long)s->micro_batch);
        status = draw(run, out, err);
    }
    if (status == PT_OK)
        status = predict(run, all, out, err);
    if (status == PT_OK)
        status = pt_run_write_schedule(run, err);
    if (status == PT_OK)
        status = pt_clock_write(run, all->costs, err);
    if (status == PT_OK)
        fputs("the schedule is sound: no deadlock with synchronous sends, every message in order\n",
              out);
    pt_run_close(run);
    return status;
}

pt_status pt_check(const pt_config *config, const pt_partition *partition, int stages, FILE *out,
                   pt_error *err)
{
    size_t blocks = (size_t)stages * (size_t)config->settings.chunks;
    seen all = {.cards = calloc((size_t)stages, sizeof *all.cards),
                .costs = calloc(blocks, sizeof *all.costs)};
    pt_status status = all.cards && all.costs
                           ? check(config, partition, stages, &all, out, err)
                           : pt_fail(err, PT_ENOMEM, "no memory for %d stages", stages);
    free(all.cards);
    free(all.costs);
    return status;
}
