/* What a run reads: the data, its order, and how that falls apart into micro-batches. */
#include <string.h>

#include "pipetrain/holdout.h"
#include "setup.h"

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
        .want_inputs = run->rank == 0,
        .want_answers = run->rank == run->stages - 1,
    };
}

static pt_status open_test_data(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (s->infer && strcmp(s->infer, "test") != 0) {
        PT_TRY(pt_dataset_open_inputs(s->infer, &run->partition->graph.input, run->rank == 0,
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

static pt_epoch_plan divide_evaluation(const pt_run *run, int64_t n)
{
    int64_t micro = run->settings->micro_batch < n ? run->settings->micro_batch : n;
    return (pt_epoch_plan){.samples = n, .batch = micro, .micro_batch = micro};
}

void pt_run_divide(pt_run *run)
{
    const pt_settings *s = run->settings;
    if (run->train_data)
        run->epoch_plan =
            (pt_epoch_plan){.samples = pt_dataset_count(run->train_data) - run->held_out,
                            .batch = s->batch,
                            .micro_batch = s->micro_batch};
    if (run->test_data)
        run->test_plan = divide_evaluation(run, pt_dataset_count(run->test_data));
    if (run->validation_order)
        run->validation_plan = divide_evaluation(run, run->held_out);
}

int pt_run_eval_sizes(const pt_run *run, int64_t ret_sizes[PT_MAX_SIZES])
{
    const pt_epoch_plan *plans[] = {&run->test_plan, &run->validation_plan};
    int n = 0;
    for (int p = 0; p < 2; p++) {
        int64_t sizes[PT_MAX_SIZES];
        int more = plans[p]->samples ? pt_epoch_sizes(plans[p], sizes) : 0;
        for (int i = 0; i < more; i++) {
            int at = 0;
            while (at < n && ret_sizes[at] != sizes[i])
                at++;
            ret_sizes[at] = sizes[i];
            n += at == n;
        }
    }
    return n;
}

/* ---- the training set -------------------------------------------------------------------------
 */

static pt_status order_parts(pt_run *run, const pt_holdout *parts, pt_error *err)
{
    const pt_settings *s = run->settings;
    run->held_out = parts->held;
    PT_TRY(pt_sampler_new_of(parts->samples, parts->learned, (uint64_t)s->seed, s->shuffle,
                             &run->train_order, err));
    if (s->eval_every == 0)
        return PT_OK;
    return pt_sampler_new_of(parts->samples + parts->learned, parts->held, /*seed=*/0,
                             /*shuffle=*/false, &run->validation_order, err);
}

static pt_status open_train_data(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    pt_dataset_spec spec = data_spec(run, PT_SPLIT_TRAIN);
    PT_TRY(pt_dataset_open(&spec, &run->train_data, err));
    int64_t n = pt_dataset_count(run->train_data);
    if (s->validation == 0)
        return pt_sampler_new(n, (uint64_t)s->seed, s->shuffle, &run->train_order, err);
    pt_holdout parts = {0};
    PT_TRY(pt_holdout_init(n, s->validation, (uint64_t)s->seed, &parts, err));
    pt_status status = order_parts(run, &parts, err);
    pt_holdout_clear(&parts);
    return status;
}

pt_status pt_run_open_data(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (!s->infer)
        PT_TRY(open_train_data(run, err));
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
