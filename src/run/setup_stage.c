/* The stages of a rank, one for each of its blocks of layers: planned, opened, profiled, and given
 * their weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "pipetrain/log.h"
#include "reporter.h"
#include "setup.h"

static bool is_last(const pt_block *block)
{
    return block->spec->stage == block->spec->stages - 1;
}

/* By how many updates the forwards of this block are late on average. */
static double delay(const pt_run *run, int chunk)
{
    const pt_schedule_rank *facts = pt_run_facts(run, chunk);
    return facts ? facts->staleness_mean : 0;
}

pt_weights_spec pt_run_weights_spec(const pt_run *run, int chunk)
{
    const pt_settings *s = run->settings;
    bool predicts = strcmp(s->predict, "none") != 0;
    bool differs = s->nesterov_last && is_last(&run->blocks[chunk]); /* nothing is late there */
    pt_optimizer_spec optimizer = pt_config_optimizer(s);
    pt_lr_spec lr = run->lr;
    if (differs)
        optimizer.name = "nesterov";
    lr.delay = delay(run, chunk);
    lr.fade = (int64_t)llround(s->pipemare_lr * (double)run->steps_per_epoch);
    lr.first_late = s->sync_epochs * run->steps_per_epoch;
    return (pt_weights_spec){
        .flat = &run->blocks[chunk].flat,
        .optimizer = optimizer,
        .predictor = pt_predictor_find(differs ? "none" : s->predict),
        .lr = lr,
        .stash = s->stash,
        .two_versions = s->two_versions,
        .correction = {.delay = delay(run, chunk), .decay = s->pipemare_dc},
        .gap_aware = s->gap_aware && delay(run, chunk) > 0,
        .per_step = run->epoch_plan.samples ? (int)pt_epoch_per_step(&run->epoch_plan) : 0,
        .versions = pt_run_peak(run, chunk, predicts ? PT_PEAK_STASH : PT_PEAK_VERSIONS),
        .training = !s->infer,
    };
}

pt_stage_plan pt_run_stage_plan(const pt_run *run, int chunk)
{
    pt_stage_plan stage_plan = {
        .backend = run->backend,
        .graph = &run->partition->graph,
        .spec = run->blocks[chunk].spec,
        .flat = &run->blocks[chunk].flat,
        .slots = pt_run_peak(run, chunk, PT_PEAK_STASH),
        .held = pt_run_peak(run, chunk, PT_PEAK_HELD),
        .device_link_slots = run->device_links ? pt_run_link_slots(run) : 0,
        .seed = (uint64_t)run->settings->seed,
        .gap_every = run->settings->infer ? 0 : run->settings->gap_every,
    };
    if (run->epoch_plan.samples)
        stage_plan.n_train_sizes = pt_epoch_sizes(&run->epoch_plan, stage_plan.train_sizes);
    stage_plan.n_eval_sizes = pt_run_eval_sizes(run, stage_plan.eval_sizes);
    pt_run_plan_recompute(run, &stage_plan);
    return stage_plan;
}

static pt_status open_block(pt_run *run, int chunk, pt_error *err)
{
    pt_block *block = &run->blocks[chunk];
    pt_stage_plan stage_plan = pt_run_stage_plan(run, chunk);
    pt_weights_spec spec = pt_run_weights_spec(run, chunk);
    PT_TRY(pt_weights_new(run->backend, &spec, &block->weights, err));
    return pt_stage_new(&stage_plan, block->weights, &block->stage, err);
}

pt_status pt_run_open_blocks(pt_run *run, pt_error *err)
{
    for (int c = 0; c < run->chunks; c++)
        PT_TRY(pt_run_name_rank(run, open_block(run, c, err), err));
    return PT_OK;
}

pt_status pt_run_profile(pt_run *run, pt_error *err)
{
    for (int c = 0; c < run->chunks; c++) {
        pt_block *block = &run->blocks[c];
        if (run->clock_costs) /* stated, not to be measured */
            block->cost = run->clock_costs[pt_run_block(run, c)];
        else if (!run->settings->infer)
            PT_TRY(pt_run_name_rank(run, pt_profile_block(run, c, &block->cost, err), err));
    }
    return PT_OK;
}

static const char *weights_path(const pt_run *run)
{
    if (run->resumed.step > 0)
        return NULL;
    return run->settings->infer ? run->settings->weights : run->settings->init;
}

/* A path that holds nothing of this model, on any rank, is a mistake. Rank 0 knows the sums. */
pt_status pt_run_count_loaded(pt_run *run, pt_error *err)
{
    const char *path = weights_path(run);
    if (!path)
        return PT_OK;
    int mine[2] = {run->loaded, run->missing};
    size_t stages = (size_t)run->stages;
    size_t *counts = calloc(stages, sizeof *counts);
    int *all = calloc(stages, sizeof mine);
    pt_status status = counts && all ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for counts");
    for (size_t r = 0; status == PT_OK && r < stages; r++)
        counts[r] = sizeof mine;
    if (status == PT_OK)
        status = pt_world_gather(run->world, PT_FOR_STATUS, /*root=*/0, mine, sizeof mine, counts,
                                 all, err);
    for (size_t r = 1; status == PT_OK && run->rank == 0 && r < stages; r++) {
        run->loaded += all[2 * r];
        run->missing += all[2 * r + 1];
    }
    if (status == PT_OK && run->rank == 0 && run->loaded == 0)
        status = pt_fail(err, PT_EINPUT,
                         "%s holds no tensor of %s; its tensors must be named as its layers are, "
                         "such as %s.weight",
                         path, run->partition->name, run->partition->graph.nodes[0].name);
    free(counts);
    free(all);
    return status;
}

static pt_status give_block(pt_run *run, pt_block *block, pt_error *err)
{
    const pt_settings *s = run->settings;
    const pt_graph *graph = &run->partition->graph;
    const char *path = weights_path(run);
    pt_status status = pt_weights_randomise(block->weights, &block->flat, graph,
                                            run->partition->init, (uint64_t)s->seed, err);
    PT_TRY(pt_run_name_rank(run, status, err));
    if (!path)
        return PT_OK;
    PT_TRY(pt_weights_load(block->weights, &block->flat, graph, path, /*all=*/s->infer != NULL,
                           &block->loaded, err));
    run->loaded += block->loaded.loaded;
    run->missing += block->loaded.missing;
    return PT_OK;
}

pt_status pt_run_give_weights(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    for (int c = 0; c < run->chunks; c++)
        PT_TRY(give_block(run, &run->blocks[c], err));
    PT_TRY(pt_checkpoint_load(run, err));
    return s->save && !s->infer ? pt_weights_make_dir(s->save, &run->partition->graph, err) : PT_OK;
}

/* When all ranks have found something. */
pt_status pt_run_name_missing(pt_run *run, pt_error *err)
{
    (void)err;
    for (int c = 0; c < run->chunks; c++)
        if (run->blocks[c].loaded.missing_names)
            pt_log(PT_LOG_WARNING, "%s has no %s: random values stay", run->settings->init,
                   run->blocks[c].loaded.missing_names);
    return PT_OK;
}
