/* Opening and closing a run. Every phase ends with all ranks agreeing: whatever is wrong with the
 * files, the data or the machine is found before training, and said once. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "clock_times.h"
#include "outputs.h"
#include "pipetrain/log.h"
#include "pipetrain/run.h"
#include "progress.h"
#include "reporter.h"
#include "setup.h"
#include "watchdog.h"

/* ---- phases -----------------------------------------------------------------------------------
 */

/* Inference by one rank has nobody to take turns with, whatever the file says of training. */
static int count_chunks(const pt_run *run)
{
    const pt_settings *s = run->settings;
    return s->infer && run->stages == 1 ? 1 : (int)s->chunks;
}

static pt_status check_blocks(const pt_run *run, pt_error *err)
{
    int layers = run->partition->graph.n_nodes;
    if (run->chunks == 1 || pt_run_all_blocks(run) <= layers)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "%s: %d chunks on each of %d ranks are %d blocks, but %s has only %d layers; "
                   "start fewer ranks, or write a smaller --chunks",
                   run->partition->file, run->chunks, run->stages, pt_run_all_blocks(run),
                   run->partition->name, layers);
}

static pt_status cut(pt_run *run, pt_error *err)
{
    const pt_graph *graph = &run->partition->graph;
    int blocks = pt_run_all_blocks(run);
    PT_TRY(check_blocks(run, err));
    run->begins = calloc((size_t)blocks, sizeof *run->begins);
    run->blocks = calloc((size_t)run->chunks, sizeof *run->blocks);
    if (!run->begins || !run->blocks)
        return pt_fail(err, PT_ENOMEM, "no memory for %d blocks of layers", blocks);
    PT_TRY(pt_run_choose_cut(run->partition, blocks, run->begins, &run->cut_was_planned, err));
    PT_TRY(pt_stage_specs_new(graph, run->begins, blocks, &run->specs, err));
    for (int c = 0; c < run->chunks; c++) {
        pt_block *block = &run->blocks[c];
        block->spec = &run->specs[pt_run_block(run, c)];
        PT_TRY(pt_flat_init_sparing(&block->flat, graph, block->spec->first, block->spec->end,
                                    /*spare_vectors=*/!run->settings->decay_norms, err));
    }
    return PT_OK;
}

static pt_precision precision(const char *name)
{
    int i = 0;
    while (i + 1 < PT_PRECISIONS && strcmp(name, pt_precision_names[i]) != 0)
        i++;
    return (pt_precision)i;
}

pt_status pt_run_name_rank(const pt_run *run, pt_status status, pt_error *err)
{
    if ((status == PT_ENOMEM || status == PT_EBACKEND) && run->world && run->stages > 1)
        pt_fail_within(err, "rank %d", run->rank);
    return status;
}

static void pause_by_backend(void *backend)
{
    ((pt_backend *)backend)->row->pause(backend);
}

/* What --clock states for all blocks of the rank, which one rate has to serve. */
static double update_ns_per_element(const pt_run *run)
{
    double us = 0;
    size_t elements = 0;
    for (int c = 0; c < run->chunks; c++) {
        us += run->clock_costs[pt_run_block(run, c)].update;
        elements += run->blocks[c].flat.param_elements;
    }
    return elements > 0 ? 1e3 * us / (double)elements : 0;
}

static pt_status open_backend(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    const pt_backend_row *row = NULL;
    pt_error passed;
    PT_TRY(pt_backend_find(s->backend, &row, &passed, err));
    if (passed.code != PT_OK && (!run->world || pt_world_local_rank(run->world) == 0))
        pt_log(PT_LOG_WARNING, "--backend auto: computes with %s, for there is %s", row->name,
               passed.text);
    pt_backend_config config = {
        .threads = (int)s->threads,
        .release = true,
        .local_rank = run->world ? pt_world_local_rank(run->world) : 0,
        .precision = precision(s->precision),
        .deterministic = s->deterministic,
    };
    if (s->clock) {
        PT_TRY(pt_clock_read(run, err));
        config.layer_times = run->clock_layers;
        config.update_ns_per_element = update_ns_per_element(run);
    }
    PT_TRY(pt_run_name_rank(run, row->open(&config, &run->backend, err), err));
    if (row->pause && run->world)
        pt_world_pause_by(run->world, pause_by_backend, run->backend);
    for (int i = 0; i < run->partition->graph.n_nodes; i++) {
        const pt_node *node = &run->partition->graph.nodes[i];
        if (!row->supports(&node->op))
            return pt_fail(err, PT_EINPUT, "%s:%d: layer %s: the backend %s has no %s",
                           run->partition->file, node->line, node->name, row->name,
                           pt_op_rows[node->op.kind].name);
    }
    return PT_OK;
}

/* Values cross a cut as they lie in memory, and that is every backend's own business. */
static pt_status compare_backends(pt_run *run, pt_error *err)
{
    const char *const *names = pt_backend_choices();
    int64_t mine = 0, first = 0, last = 0;
    while (names[mine] && strcmp(names[mine], run->backend->row->name) != 0)
        mine++;
    PT_TRY(pt_run_least(run, mine, &first, err));
    PT_TRY(pt_run_least(run, -mine, &last, err));
    if (first == -last)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "--backend %s: the ranks found different ones (%s and %s), whose values do not "
                   "fit each other; write --backend %s",
                   run->settings->backend, names[first], names[-last], names[-last]);
}

/* Before the watchdog begins, whose thread uses it. What fails is told, and no more. */
static pt_status open_progress(pt_run *run, pt_error *err)
{
    (void)err;
    if (run->world && run->rank == 0 && !run->settings->infer)
        run->progress = pt_progress_open(run);
    return PT_OK;
}

static pt_status open_outputs(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    PT_TRY(pt_outputs_try(run, err));
    if (!s->infer && (s->timing || s->trace))
        PT_TRY(pt_timeline_open(run, &run->timeline, err));
    return s->infer ? PT_OK : pt_reporter_open(run, &run->reporter, err);
}

/* What reporters and timelines agree on over the network, once all have opened their files. */
static pt_status join_world(pt_run *run, pt_error *err)
{
    if (run->timeline)
        PT_TRY(pt_timeline_join(run->timeline, err));
    PT_TRY(pt_checkpoint_join(run, err));
    return run->reporter ? pt_reporter_join(run->reporter, err) : PT_OK;
}

static int64_t largest_micro_batch(const pt_run *run)
{
    const pt_epoch_plan *plans[] = {&run->epoch_plan, &run->test_plan, &run->validation_plan};
    int64_t largest = 0;
    for (size_t p = 0; p < sizeof plans / sizeof *plans; p++) {
        int64_t sizes[PT_MAX_SIZES] = {0}; /* largest first */
        if (plans[p]->samples)
            pt_epoch_sizes(plans[p], sizes);
        largest = sizes[0] > largest ? sizes[0] : largest;
    }
    return largest;
}

static pt_status make_engine(pt_run *run, const pt_engine_block *blocks, pt_error *err)
{
    const pt_settings *s = run->settings;
    pt_engine_spec spec = {
        .world = run->world,
        .backend = run->backend,
        .blocks = blocks,
        .chunks = run->chunks,
        .graph = &run->partition->graph,
        .seed = (uint64_t)s->seed,
        .clip = s->infer ? 0 : s->clip,
        .blocking_sends = s->blocking_sends,
        .fail_at_update = s->fail_at == run->rank,
        .device_links = run->device_links,
        .link_slots = pt_run_link_slots(run),
        .largest_samples = largest_micro_batch(run),
        .most_micro_batches =
            run->epoch_plan.samples ? pt_epoch_micro_batches(&run->epoch_plan) : 0,
        .mark = &run->mark,
    };
    if (!s->infer)
        spec.hooks = pt_run_hooks(run);
    return pt_engine_new(&spec, &run->engine, err);
}

static pt_status open_engine(pt_run *run, pt_error *err)
{
    pt_engine_block blocks[PT_MOST_CHUNKS];
    for (int c = 0; c < run->chunks; c++)
        blocks[c] = (pt_engine_block){.stage = run->blocks[c].stage,
                                      .spec = run->blocks[c].spec,
                                      .slots = pt_run_peak(run, c, PT_PEAK_STASH)};
    return make_engine(run, blocks, err);
}

/* ---- life -------------------------------------------------------------------------------------
 */

typedef pt_status (*phase)(pt_run *run, pt_error *err);

/* Up to here a stage can be opened alone, for --check; the rest needs its neighbours. */
static const phase alone[] = {
    pt_outputs_check,
    open_progress,
    pt_watchdog_choose,
    pt_watchdog_open,
    cut,
    pt_run_find_recomputed,
    pt_run_open_data,
    pt_run_plan,
    open_backend,
    compare_backends,
    pt_run_choose_links,
    pt_run_reserve,
    pt_run_fit,
    pt_run_open_blocks,
    pt_run_profile,
};
static const phase together[] = {
    pt_checkpoint_find,  pt_checkpoint_share, pt_run_give_weights,        pt_run_count_loaded,
    pt_run_name_missing, pt_checkpoint_open,  pt_checkpoint_number_hosts, open_outputs,
    join_world,          open_engine,
};

static pt_run *new_run(pt_world *world, const pt_config *config, const pt_partition *partition)
{
    pt_run *run = calloc(1, sizeof *run);
    if (!run)
        return NULL;
    run->world = world;
    run->config = config;
    run->settings = &config->settings;
    run->partition = partition;
    return run;
}

static pt_status run_phases(pt_run *run, const phase *phases, size_t n, pt_error *err)
{
    for (size_t i = 0; i < n; i++) {
        pt_mark_place(&run->mark, "at the start of the run", /*step=*/0, /*peer=*/-1);
        pt_status status = phases[i](run, err);
        if (run->world)
            status = pt_world_agree(run->world, status, err, NULL);
        PT_TRY(status);
    }
    return PT_OK;
}

pt_status pt_run_open(pt_world *world, const pt_config *config, const pt_partition *partition,
                      const pt_run_app *app, pt_run **ret_run, pt_error *err)
{
    pt_run *run = new_run(world, config, partition);
    pt_status status = run ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for a run");
    PT_GOTO(status, pt_world_agree(world, status, err, NULL));
    run->console = app->console;
    run->stop = app->stop;
    run->halt = app->halt;
    run->stalled = app->stalled;
    run->stages = pt_world_size(world);
    run->rank = pt_world_rank(world);
    run->chunks = count_chunks(run);
    PT_GOTO(status, run_phases(run, alone, sizeof alone / sizeof alone[0], err));
    PT_GOTO(status, run_phases(run, together, sizeof together / sizeof together[0], err));
    *ret_run = run;
out:
    if (status != PT_OK)
        pt_run_close(run);
    return status;
}

pt_status pt_run_open_alone(const pt_config *config, const pt_partition *partition, int stages,
                            int rank, pt_run **ret_run, pt_error *err)
{
    pt_run *run = new_run(NULL, config, partition);
    if (!run)
        return pt_fail(err, PT_ENOMEM, "no memory for a run");
    run->stages = stages;
    run->rank = rank;
    run->chunks = count_chunks(run);
    pt_status status = run_phases(run, alone, sizeof alone / sizeof alone[0], err);
    if (status == PT_OK)
        *ret_run = run;
    else
        pt_run_close(run);
    return status;
}

void pt_run_close(pt_run *run)
{
    if (!run)
        return;
    pt_watchdog_close(run->watchdog);
    pt_progress_close(run->progress);
    pt_engine_free(run->engine);
    pt_checkpoint_close(run->checkpoint);
    pt_timeline_close(run->timeline);
    pt_reporter_close(run->reporter);
    for (int c = 0; run->blocks && c < run->chunks; c++) {
        pt_stage_free(run->blocks[c].stage);
        pt_weights_free(run->blocks[c].weights);
    }
    if (run->world)
        pt_world_pause_by(run->world, NULL, NULL);
    if (run->backend)
        run->backend->row->close(run->backend);
    free(run->clock_costs);
    free(run->clock_layers);
    pt_span_clear(&run->sync);
    pt_span_clear(&run->full);
    pt_span_clear(&run->last);
    pt_span_clear(&run->test);
    pt_span_clear(&run->validation);
    pt_sampler_free(run->train_order);
    pt_sampler_free(run->test_order);
    pt_sampler_free(run->validation_order);
    pt_dataset_close(run->train_data);
    pt_dataset_close(run->test_data);
    for (int c = 0; run->blocks && c < run->chunks; c++) {
        pt_flat_clear(&run->blocks[c].flat);
        free(run->blocks[c].loaded.missing_names);
    }
    free(run->blocks);
    free(run->recompute);
    pt_stage_specs_free(run->specs, pt_run_all_blocks(run));
    free(run->begins);
    free(run->host_numbers);
    free(run);
}
