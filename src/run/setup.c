/* Opening and closing a run. Every phase ends with all ranks agreeing: whatever is wrong with the
 * files, the data or the machine is found before training, and said once. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock_times.h"
#include "pipetrain/log.h"
#include "pipetrain/run.h"
#include "pipetrain/weights_io.h"
#include "reporter.h"
#include "settings_rules.h"
#include "setup.h"

static bool is_first(const pt_run *run)
{
    return run->rank == 0;
}

static bool is_last(const pt_run *run)
{
    return run->rank == run->stages - 1;
}

/* ---- phases -----------------------------------------------------------------------------------
 */

static pt_status cut(pt_run *run, pt_error *err)
{
    const pt_graph *graph = &run->partition->graph;
    run->begins = calloc((size_t)run->stages, sizeof *run->begins);
    if (!run->begins)
        return pt_fail(err, PT_ENOMEM, "no memory for %d stages", run->stages);
    PT_TRY(pt_run_choose_cut(run->partition, run->stages, run->begins, &run->cut_was_planned, err));
    PT_TRY(pt_stage_specs_new(graph, run->begins, run->stages, &run->specs, err));
    run->spec = &run->specs[run->rank];
    return pt_flat_init_sparing(&run->flat, graph, run->spec->first, run->spec->end,
                                /*spare_vectors=*/!run->settings->decay_norms, err);
}

static pt_dataset_spec data_spec(const pt_run *run, pt_split split)
{
    const pt_graph *graph = &run->partition->graph;
    bool synthetic = strcmp(run->settings->dataset, "synthetic") == 0;
    return (pt_dataset_spec){
        .name = run->settings->dataset,
        .path = run->settings->data,
        .split = split,
        .shape = graph->input,
        .outputs = pt_shape_elements(&graph->loss.shape),
        .targets = graph->loss.kind == PT_LOSS_MSE,
        .seed = (uint64_t)run->settings->seed,
        .samples = split == PT_SPLIT_TRAIN || synthetic ? run->settings->samples : 0,
        .want_inputs = is_first(run),
        .want_answers = is_last(run),
    };
}

static pt_status open_test_data(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (s->infer && strcmp(s->infer, "test") != 0) {
        PT_TRY(pt_dataset_open_inputs(s->infer, &run->partition->graph.input, is_first(run),
                                      &run->test_data, err));
    } else if (s->infer || s->eval_every > 0) {
        pt_dataset_spec spec = data_spec(run, PT_SPLIT_TEST);
        PT_TRY(pt_dataset_open(&spec, &run->test_data, err));
    } else {
        return PT_OK;
    }
    return pt_sampler_new(pt_dataset_count(run->test_data), /*seed=*/0, /*shuffle=*/false,
                          &run->test_order, err);
}

void pt_run_divide(pt_run *run)
{
    const pt_settings *s = run->settings;
    if (run->train_data)
        run->epoch_plan = (pt_epoch_plan){.samples = pt_dataset_count(run->train_data),
                                          .batch = s->batch,
                                          .micro_batch = s->micro_batch};
    if (run->test_data) {
        int64_t n = pt_dataset_count(run->test_data);
        int64_t micro = s->micro_batch < n ? s->micro_batch : n;
        run->test_plan = (pt_epoch_plan){.samples = n, .batch = micro, .micro_batch = micro};
    }
}

static pt_status open_data(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (!s->infer) {
        pt_dataset_spec spec = data_spec(run, PT_SPLIT_TRAIN);
        PT_TRY(pt_dataset_open(&spec, &run->train_data, err));
        int64_t n = pt_dataset_count(run->train_data);
        PT_TRY(pt_sampler_new(n, (uint64_t)s->seed, s->shuffle, &run->train_order, err));
    }
    if ((s->crop > 0 || s->flip) && run->partition->graph.input.ndim != 3)
        return pt_fail(
            err, PT_EINPUT,
            "--crop and --flip need images (channels, height, width); the input of %s is "
            "a vector",
            run->partition->name);
    run->augmentation = (pt_augmentation){.crop = (int)s->crop, .flip = s->flip};
    PT_TRY(open_test_data(run, err));
    pt_run_divide(run);
    return PT_OK;
}

/* Lists for one step, for an epoch, or for all steps where they are fewer: anything else was meant
 * for another run. */
static pt_status check_own_lists(const pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (!s->own_lists)
        return PT_OK;
    int64_t n = pt_own_lists_micro_batches(s->own_lists);
    int64_t step = pt_epoch_per_step(&run->epoch_plan);
    int64_t epoch = pt_epoch_micro_batches(&run->epoch_plan);
    int64_t all = run->total_steps < run->steps_per_epoch
                      ? pt_epoch_micro_batches_of(&run->epoch_plan, run->total_steps)
                      : epoch;
    if (n == step || n == epoch || n == all)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "%s has %lld micro-batches a rank; it must have those of one step of this run, "
                   "which are %lld, or those of an epoch, which are %lld",
                   s->schedule, (long long)n, (long long)step, (long long)epoch);
}

static pt_status accept_staleness(const pt_run *run, pt_error *err)
{
    const pt_span *span = run->full.facts ? &run->full : &run->last;
    pt_rules_facts facts = {.stages = run->stages};
    for (int r = 0; span->facts && r < run->stages; r++) {
        int staleness = span->facts[r].staleness_max, waiting = span->facts[r].held_peak;
        facts.staleness = staleness > facts.staleness ? staleness : facts.staleness;
        facts.waiting = waiting > facts.waiting ? waiting : facts.waiting;
    }
    return pt_rules_accept(run->settings, &facts, err);
}

pt_status pt_run_plan(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (run->test_data)
        PT_TRY(pt_span_infer(run->stages, (int)pt_epoch_micro_batches(&run->test_plan), &run->test,
                             err));
    if (s->infer)
        return PT_OK;
    if (s->fail_at >= run->stages)
        return pt_fail(err, PT_EINPUT, "--fail-at %lld: the last rank is %d", (long long)s->fail_at,
                       run->stages - 1);
    run->steps_per_epoch = pt_epoch_steps(&run->epoch_plan);
    run->total_steps = s->epochs * run->steps_per_epoch;
    /* Who spoke last decides between steps and epochs; said together, whichever ends first. */
    pt_option_source steps = pt_options_source(&run->config->options, "steps");
    pt_option_source epochs = pt_options_source(&run->config->options, "epochs");
    if (s->steps > 0 && (steps > epochs || (steps == epochs && s->steps < run->total_steps)))
        run->total_steps = s->steps;
    if (run->total_steps / run->steps_per_epoch >= INT32_MAX)
        return pt_fail(err, PT_EINPUT, "--steps %lld is more than %d epochs of this data",
                       (long long)s->steps, INT32_MAX);
    run->epochs = (run->total_steps + run->steps_per_epoch - 1) / run->steps_per_epoch;
    PT_TRY(pt_config_lr(run->config, run->steps_per_epoch, run->total_steps, &run->lr, err));

    pt_schedule_spec spec = {
        .name = s->schedule,
        .stages = run->stages,
        .per_step = (int)pt_epoch_per_step(&run->epoch_plan),
        .in_flight = (int)s->in_flight,
        .clip = s->clip > 0,
        .chunks = 1,
    };
    int64_t rest = run->total_steps % run->steps_per_epoch;
    PT_TRY(check_own_lists(run, err));
    PT_TRY(pt_run_plan_sync(run, &spec, err));
    PT_TRY(pt_run_accept_gap(run, err));
    if (run->total_steps - s->sync_epochs * run->steps_per_epoch >= run->steps_per_epoch) {
        spec.micro_batches = (int)pt_epoch_micro_batches(&run->epoch_plan);
        PT_TRY(pt_span_new(&spec, s->own_lists, &run->full, err));
    }
    if (rest > 0) {
        spec.micro_batches = (int)pt_epoch_micro_batches_of(&run->epoch_plan, rest);
        PT_TRY(pt_span_new(&spec, s->own_lists, &run->last, err));
    }
    return accept_staleness(run, err);
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

static pt_status open_backend(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    const pt_backend_row *row = NULL;
    PT_TRY(pt_backend_find(s->backend, &row, err));
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
        if (run->flat.param_elements > 0)
            config.update_ns_per_element =
                1e3 * run->clock_costs[run->rank].update / (double)run->flat.param_elements;
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

/* By how many updates the forwards of this stage are late on average. */
static double delay(const pt_run *run)
{
    const pt_span *span = run->full.facts ? &run->full : &run->last;
    return span->facts ? span->facts[run->rank].staleness_mean : 0;
}

pt_weights_spec pt_run_weights_spec(const pt_run *run)
{
    const pt_settings *s = run->settings;
    bool predicts = strcmp(s->predict, "none") != 0;
    bool differs = s->nesterov_last && is_last(run); /* nothing is late there */
    pt_optimizer_spec optimizer = pt_config_optimizer(s);
    pt_lr_spec lr = run->lr;
    if (differs)
        optimizer.name = "nesterov";
    lr.delay = delay(run);
    lr.fade = (int64_t)llround(s->pipemare_lr * (double)run->steps_per_epoch);
    lr.first_late = s->sync_epochs * run->steps_per_epoch;
    return (pt_weights_spec){
        .flat = &run->flat,
        .optimizer = optimizer,
        .predictor = pt_predictor_find(differs ? "none" : s->predict),
        .lr = lr,
        .stash = s->stash,
        .two_versions = s->two_versions,
        .correction = {.delay = delay(run), .decay = s->pipemare_dc},
        .gap_aware = s->gap_aware && delay(run) > 0,
        .per_step = run->epoch_plan.samples ? (int)pt_epoch_per_step(&run->epoch_plan) : 0,
        .versions = pt_run_peak(run, predicts ? PT_PEAK_STASH : PT_PEAK_VERSIONS),
        .training = !s->infer,
    };
}

static int link_slots(const pt_run *run)
{
    return pt_schedule_slots(&(pt_schedule_spec){.in_flight = (int)run->settings->in_flight});
}

pt_stage_plan pt_run_stage_plan(const pt_run *run)
{
    pt_stage_plan stage_plan = {
        .backend = run->backend,
        .graph = &run->partition->graph,
        .spec = run->spec,
        .flat = &run->flat,
        .slots = pt_run_peak(run, PT_PEAK_STASH),
        .held = pt_run_peak(run, PT_PEAK_HELD),
        .device_link_slots = run->device_links ? link_slots(run) : 0,
        .seed = (uint64_t)run->settings->seed,
        .gap_every = run->settings->infer ? 0 : run->settings->gap_every,
    };
    if (run->epoch_plan.samples)
        stage_plan.n_train_sizes = pt_epoch_sizes(&run->epoch_plan, stage_plan.train_sizes);
    if (run->test_plan.samples)
        stage_plan.n_eval_sizes = pt_epoch_sizes(&run->test_plan, stage_plan.eval_sizes);
    pt_run_plan_recompute(run, &stage_plan);
    return stage_plan;
}

static pt_status open_stage(pt_run *run, pt_error *err)
{
    pt_stage_plan stage_plan = pt_run_stage_plan(run);
    pt_weights_spec spec = pt_run_weights_spec(run);
    PT_TRY(pt_run_name_rank(run, pt_weights_new(run->backend, &spec, &run->weights, err), err));
    return pt_run_name_rank(run, pt_stage_new(&stage_plan, run->weights, &run->stage, err), err);
}

static const char *weights_path(const pt_run *run)
{
    return run->settings->infer ? run->settings->weights : run->settings->init;
}

/* A path that holds nothing of this model, on any rank, is a mistake. Rank 0 knows the sums. */
static pt_status count_loaded(pt_run *run, pt_error *err)
{
    const char *path = weights_path(run);
    if (!path)
        return PT_OK;
    int mine[2] = {run->loaded.loaded, run->loaded.missing};
    size_t stages = (size_t)run->stages;
    size_t *counts = calloc(stages, sizeof *counts);
    int *all = calloc(stages, sizeof mine);
    pt_status status = counts && all ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for counts");
    for (size_t r = 0; status == PT_OK && r < stages; r++)
        counts[r] = sizeof mine;
    if (status == PT_OK)
        status = pt_world_gather(run->world, PT_FOR_STATUS, /*root=*/0, mine, sizeof mine, counts,
                                 all, err);
    for (size_t r = 1; status == PT_OK && is_first(run) && r < stages; r++) {
        run->loaded.loaded += all[2 * r];
        run->loaded.missing += all[2 * r + 1];
    }
    if (status == PT_OK && is_first(run) && run->loaded.loaded == 0)
        status = pt_fail(err, PT_EINPUT,
                         "%s holds no tensor of %s; its tensors must be named as its layers are, "
                         "such as %s.weight",
                         path, run->partition->name, run->partition->graph.nodes[0].name);
    free(counts);
    free(all);
    return status;
}

static pt_status give_weights(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    const pt_graph *graph = &run->partition->graph;
    pt_status status = pt_weights_randomise(run->weights, &run->flat, graph, run->partition->init,
                                            (uint64_t)s->seed, err);
    PT_TRY(pt_run_name_rank(run, status, err));
    const char *path = weights_path(run);
    if (path)
        PT_TRY(pt_weights_load(run->weights, &run->flat, graph, path, /*all=*/s->infer != NULL,
                               &run->loaded, err));
    return s->save && !s->infer ? pt_weights_make_dir(s->save, graph, err) : PT_OK;
}

/* Files that are written at the end are tried at the start, and keep what they hold until then: the
 * plan may replace the very partition file. */
static pt_status try_file(const char *option, const char *path, pt_error *err)
{
    FILE *file = path ? fopen(path, "a") : NULL;
    if (path && !file)
        return pt_fail(err, PT_EINPUT, "%s: cannot write %s: %s", option, path, strerror(errno));
    if (file)
        fclose(file);
    return PT_OK;
}

static pt_status open_outputs(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (is_first(run)) {
        PT_TRY(try_file("--summary", s->infer ? NULL : s->summary, err));
        PT_TRY(try_file("--out", s->out, err));
        PT_TRY(try_file("--clock-out", s->clock_out, err));
        PT_TRY(try_file("--schedule-out", s->infer ? NULL : s->schedule_out, err));
        PT_TRY(try_file("--plan-out", s->plan_out, err));
    }
    if (!s->infer && (s->timing || s->trace))
        PT_TRY(pt_timeline_open(run, &run->timeline, err));
    return s->infer ? PT_OK : pt_reporter_open(run, &run->reporter, err);
}

/* When all ranks have found something. */
static pt_status name_missing(pt_run *run, pt_error *err)
{
    (void)err;
    if (run->loaded.missing_names)
        pt_log(PT_LOG_WARNING, "%s has no %s: random values stay", run->settings->init,
               run->loaded.missing_names);
    return PT_OK;
}

/* What reporters and timelines agree on over the network, once all have opened their files. */
static pt_status join_world(pt_run *run, pt_error *err)
{
    if (run->timeline)
        PT_TRY(pt_timeline_join(run->timeline, err));
    return run->reporter ? pt_reporter_join(run->reporter, err) : PT_OK;
}

static pt_status open_engine(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    int64_t train[PT_MAX_SIZES] = {0}, test[PT_MAX_SIZES] = {0}; /* largest first */
    if (run->epoch_plan.samples)
        pt_epoch_sizes(&run->epoch_plan, train);
    if (run->test_plan.samples)
        pt_epoch_sizes(&run->test_plan, test);
    pt_engine_spec spec = {
        .world = run->world,
        .backend = run->backend,
        .stage = run->stage,
        .graph = &run->partition->graph,
        .stage_spec = run->spec,
        .seed = (uint64_t)s->seed,
        .clip = s->infer ? 0 : s->clip,
        .blocking_sends = s->blocking_sends,
        .fail_at_update = s->fail_at == run->rank,
        .device_links = run->device_links,
        .link_slots = link_slots(run),
        .slots = pt_run_peak(run, PT_PEAK_STASH),
        .largest_samples = train[0] > test[0] ? train[0] : test[0],
        .most_micro_batches =
            run->epoch_plan.samples ? pt_epoch_micro_batches(&run->epoch_plan) : 0,
    };
    if (!s->infer)
        spec.hooks = (pt_engine_hooks){
            .context = run->reporter,
            .step_done = pt_reporter_step,
            .between = pt_reporter_between,
        };
    return pt_engine_new(&spec, &run->engine, err);
}

static pt_status profile(pt_run *run, pt_error *err)
{
    if (run->clock_costs) { /* stated, not to be measured */
        run->cost = run->clock_costs[run->rank];
        return PT_OK;
    }
    return run->settings->infer
               ? PT_OK
               : pt_run_name_rank(run, pt_profile_stage(run, &run->cost, err), err);
}

/* ---- life -------------------------------------------------------------------------------------
 */

typedef pt_status (*phase)(pt_run *run, pt_error *err);

/* Up to here a stage can be opened alone, for --check; the rest needs its neighbours. */
static const phase alone[] = {cut,
                              pt_run_find_recomputed,
                              open_data,
                              pt_run_plan,
                              open_backend,
                              compare_backends,
                              pt_run_choose_links,
                              pt_run_reserve,
                              pt_run_fit,
                              open_stage,
                              profile};
static const phase together[] = {give_weights, count_loaded, name_missing,
                                 open_outputs, join_world,   open_engine};

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
        pt_status status = phases[i](run, err);
        if (run->world)
            status = pt_world_agree(run->world, status, err, NULL);
        PT_TRY(status);
    }
    return PT_OK;
}

pt_status pt_run_open(pt_world *world, const pt_config *config, const pt_partition *partition,
                      FILE *console, const volatile int *stop, pt_run **ret_run, pt_error *err)
{
    pt_run *run = new_run(world, config, partition);
    pt_status status = run ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for a run");
    PT_GOTO(status, pt_world_agree(world, status, err, NULL));
    run->console = console;
    run->stop = stop;
    run->stages = pt_world_size(world);
    run->rank = pt_world_rank(world);
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
    pt_engine_free(run->engine);
    pt_timeline_close(run->timeline);
    pt_reporter_close(run->reporter);
    pt_stage_free(run->stage);
    pt_weights_free(run->weights);
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
    pt_sampler_free(run->train_order);
    pt_sampler_free(run->test_order);
    pt_dataset_close(run->train_data);
    pt_dataset_close(run->test_data);
    pt_flat_clear(&run->flat);
    free(run->recompute);
    pt_stage_specs_free(run->specs, run->stages);
    free(run->begins);
    free(run->loaded.missing_names);
    free(run);
}
