/* What a run reads: the data, its order, and how that falls apart into micro-batches. */
#include <string.h>

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

pt_status pt_run_open_data(pt_run *run, pt_error *err)
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
