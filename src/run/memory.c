/* Does the device have what the stage will take? Asked before anything is built; a device that is
 * too small is met with the micro-batch that would fit. */
#include "checkpoint.h"
#include "setup.h"

static pt_status predict_bytes(const pt_run *run, size_t *ret_bytes, pt_error *err)
{
    pt_stage_bytes all = {0};
    for (int c = 0; c < run->chunks; c++) {
        pt_stage_plan plan = pt_run_stage_plan(run, c);
        pt_weights_spec weights = pt_run_weights_spec(run, c);
        pt_stage_bytes bytes;
        PT_TRY(pt_stage_predict_bytes(&plan, &weights, &bytes, err));
        all.own += bytes.own;
        all.shared = bytes.shared > all.shared ? bytes.shared : all.shared;
    }
    size_t copy = 0;
    PT_TRY(pt_checkpoint_predict_bytes(run, &copy, err));
    *ret_bytes = all.own + all.shared + copy;
    return PT_OK;
}

/* The same run with another micro-batch, by planning alone. */
static pt_status bytes_with(const pt_run *run, int64_t micro_batch, size_t *ret_bytes,
                            pt_error *err)
{
    pt_settings settings = *run->settings; /* borrows the texts */
    pt_run trial = *run;
    settings.micro_batch = micro_batch;
    trial.settings = &settings;
    trial.sync = trial.full = trial.last = trial.test = trial.validation = (pt_span){0};
    pt_run_divide(&trial);
    pt_status status = pt_run_plan(&trial, err);
    if (status == PT_OK)
        status = predict_bytes(&trial, ret_bytes, err);
    pt_span_clear(&trial.sync);
    pt_span_clear(&trial.full);
    pt_span_clear(&trial.last);
    pt_span_clear(&trial.test);
    pt_span_clear(&trial.validation);
    return status;
}

/* 0 when not even a single sample fits. The present micro-batch does not. */
static pt_status largest_that_fits(const pt_run *run, size_t bytes, int64_t *ret_micro_batch,
                                   pt_error *err)
{
    int64_t fits = 0, too_large = run->settings->micro_batch;
    while (too_large - fits > 1) {
        int64_t middle = fits + (too_large - fits) / 2;
        size_t needed = 0;
        PT_TRY(bytes_with(run, middle, &needed, err));
        *(needed <= bytes ? &fits : &too_large) = middle;
    }
    *ret_micro_batch = fits;
    return PT_OK;
}

pt_status pt_run_reserve(pt_run *run, pt_error *err)
{
    size_t there = 0;
    PT_TRY(predict_bytes(run, &run->predicted_bytes, err));
    run->largest_micro_batch = INT64_MAX;
    run->refusal = (pt_error){PT_OK, ""};
    pt_status status =
        run->backend->row->reserve(run->backend, run->predicted_bytes, &there, &run->refusal);
    /* Lists of one's own are for this number of micro-batches alone, and groups of interleaved ones
     * for a few numbers. */
    if (status == PT_ENOMEM && there < run->predicted_bytes && !run->settings->own_lists &&
        run->chunks == 1)
        return largest_that_fits(run, there, &run->largest_micro_batch, err);
    if (status == PT_OK)
        return PT_OK;
    return pt_run_name_rank(run, pt_fail(err, status, "%s", run->refusal.text), err);
}

pt_status pt_run_fit(pt_run *run, pt_error *err)
{
    int64_t fits = 0;
    PT_TRY(pt_run_least(run, run->largest_micro_batch, &fits, err));
    if (run->refusal.code == PT_OK)
        return PT_OK; /* another rank says what is missing */
    if (fits == 0)
        return pt_fail(err, PT_EINPUT,
                       "rank %d: %s; not even --micro-batch 1 fits: use more stages (mpirun -np)",
                       run->rank, run->refusal.text);
    return pt_fail(err, PT_EINPUT, "rank %d: %s; largest --micro-batch that fits is %lld",
                   run->rank, run->refusal.text, (long long)fits);
}
