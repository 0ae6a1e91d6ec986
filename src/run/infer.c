/* --infer: rank 0 feeds, the pipeline runs forward only, and the predictions come back to rank 0 in
 * the order of the input. The last stage keeps them until the pass is over: a few floats a sample.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/run.h"

typedef struct answers {
    float *y; /* last stage: (samples, outputs) */
    int64_t outputs;
    const pt_run *run;
} answers;

static pt_status keep(void *context, const pt_epoch_item *item, const float *y, pt_error *err)
{
    (void)err;
    answers *a = context;
    memcpy(a->y + item->first * a->outputs, y, (size_t)(item->samples * a->outputs) * sizeof *a->y);
    return PT_OK;
}

static pt_status watch_stop(void *context, pt_error *err)
{
    const answers *a = context;
    return a->run->stop && *a->run->stop ? pt_fail(err, PT_EINTERRUPTED, "interrupted") : PT_OK;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static void write_classes(FILE *out, int64_t i, const float *y, int64_t n)
{
    int64_t best = 0;
    double sum = 0;
    for (int64_t c = 1; c < n; c++)
        if (y[c] > y[best])
            best = c;
    for (int64_t c = 0; c < n; c++)
        sum += exp((double)y[c] - (double)y[best]);
    fprintf(out, "%lld,%lld,%.6f", (long long)i, (long long)best, 1 / sum);
    for (int64_t c = 0; c < n; c++)
        fprintf(out, ",%.6f", exp((double)y[c] - (double)y[best]) / sum);
    fputc('\n', out);
}

static void write_values(FILE *out, int64_t i, const float *y, int64_t n)
{
    fprintf(out, "%lld", (long long)i);
    for (int64_t c = 0; c < n; c++)
        fprintf(out, ",%.9g", (double)y[c]);
    fputc('\n', out);
}

static pt_status write_csv(const pt_run *run, const float *y, int64_t samples, int64_t outputs,
                           pt_error *err)
{
    const char *path = run->settings->out;
    bool classes = run->partition->graph.loss.kind == PT_LOSS_CROSS_ENTROPY;
    FILE *out = fopen(path, "w");
    if (!out)
        return pt_fail(err, PT_EINPUT, "--out: cannot write %s: %s", path, strerror(errno));
    fputs(classes ? "sample,class,probability" : "sample", out);
    for (int64_t c = 0; c < outputs; c++)
        fprintf(out, classes ? ",p%lld" : ",y%lld", (long long)c);
    fputc('\n', out);
    for (int64_t i = 0; i < samples; i++)
        (classes ? write_classes : write_values)(out, i, y + i * outputs, outputs);
    bool bad = ferror(out);
    bad |= fclose(out) != 0;
    if (bad)
        return pt_fail(err, PT_EIO, "--out: cannot write %s: %s", path, strerror(errno));
    fprintf(run->console, "%lld predictions of %s are in %s\n", (long long)samples,
            run->partition->name, path);
    return PT_OK;
}

/* ---- running ----------------------------------------------------------------------------------
 */

static pt_status predict(pt_run *run, answers *a, pt_error *err)
{
    pt_pass pass = {
        .list = &run->test.schedule->ranks[run->rank],
        .mode = PT_EVAL,
        .plan = run->test_plan,
        .sampler = run->test_order,
        .source = {run->test_data, &run->partition->normalisation, NULL},
    };
    pt_engine_hooks hooks = {.context = a, .predicted = keep, .between = watch_stop};
    pt_pass_result result;
    pt_sampler_epoch(run->test_order, /*epoch=*/0);
    pt_engine_set_hooks(run->engine, &hooks);
    return pt_engine_run(run->engine, &pass, /*synchronous=*/true, &result, err);
}

pt_status pt_run_infer(pt_run *run, pt_error *err)
{
    int64_t samples = run->test_plan.samples;
    answers a = {.run = run, .outputs = pt_shape_elements(&run->partition->graph.loss.shape)};
    size_t bytes = (size_t)(samples * a.outputs) * sizeof *a.y;
    size_t *counts = calloc((size_t)run->stages, sizeof *counts);
    float *gathered = run->rank == 0 ? malloc(bytes) : NULL;
    a.y = run->rank == run->stages - 1 ? malloc(bytes) : NULL;
    pt_status status = PT_OK;
    if (!counts || (run->rank == 0 && !gathered) || (run->rank == run->stages - 1 && !a.y)) {
        status = pt_fail(err, PT_ENOMEM, "no memory for %lld predictions", (long long)samples);
        goto out;
    }
    PT_GOTO(status, predict(run, &a, err));
    counts[run->stages - 1] = bytes;
    PT_GOTO(status, pt_world_gather(run->world, PT_FOR_ANSWERS, /*root=*/0, a.y, counts[run->rank],
                                    counts, gathered, err));
    if (run->rank == 0)
        status = write_csv(run, gathered, samples, a.outputs, err);
out:
    free(counts);
    free(gathered);
    free(a.y);
    return status;
}
