/* Training: epochs, evaluations, and the files that remain. */
#include <stdlib.h>
#include <string.h>

#include "pipetrain/clock.h"
#include "pipetrain/run.h"
#include "pipetrain/weights_io.h"
#include "reporter.h"

static const pt_span *span_of(const pt_run *run, uint32_t epoch, int64_t steps)
{
    if (epoch < run->settings->sync_epochs)
        return &run->sync;
    return steps == run->steps_per_epoch ? &run->full : &run->last;
}

static pt_status train_epoch(pt_run *run, uint32_t epoch, int64_t steps, pt_error *err)
{
    const pt_span *span = span_of(run, epoch, steps);
    pt_sampler_epoch(run->train_order, epoch);
    pt_pass pass = {
        .list = &span->schedule->ranks[run->rank],
        .mode = PT_TRAIN,
        .epoch = epoch,
        .plan = run->epoch_plan,
        .sampler = run->train_order,
        .source = {run->train_data, &run->partition->normalisation, &run->augmentation},
        .want_loss = true,
    };
    pt_pass_result result;
    pt_reporter_epoch_begin(run->reporter, epoch, steps);
    PT_TRY(pt_engine_run(run->engine, &pass, span->schedule->synchronous, &result, err));
    return pt_reporter_epoch_end(run->reporter, &result, err);
}

static pt_status evaluate(pt_run *run, uint32_t epoch, pt_error *err)
{
    pt_sampler_epoch(run->test_order, /*epoch=*/0);
    pt_pass pass = {
        .list = &run->test.schedule->ranks[run->rank],
        .mode = PT_EVAL,
        .epoch = epoch,
        .plan = run->test_plan,
        .sampler = run->test_order,
        .source = {run->test_data, &run->partition->normalisation, NULL},
        .want_loss = true,
    };
    pt_pass_result result;
    PT_TRY(pt_engine_run(run->engine, &pass, /*synchronous=*/true, &result, err));
    return pt_reporter_evaluation(run->reporter, &result, err);
}

static pt_status train_epochs(pt_run *run, pt_error *err)
{
    int64_t every = run->settings->eval_every;
    for (int64_t epoch = 0; epoch < run->epochs; epoch++) {
        int64_t left = run->total_steps - epoch * run->steps_per_epoch;
        int64_t steps = left < run->steps_per_epoch ? left : run->steps_per_epoch;
        PT_TRY(train_epoch(run, (uint32_t)epoch, steps, err));
        if (run->timeline)
            PT_TRY(pt_timeline_add(run->timeline, err));
        if (every > 0 && ((epoch + 1) % every == 0 || epoch + 1 == run->epochs))
            PT_TRY(evaluate(run, (uint32_t)epoch, err));
    }
    return PT_OK;
}

static pt_status write_summary(pt_run *run, double wall_s, pt_error *err)
{
    stage_card *cards = calloc((size_t)run->stages, sizeof *cards);
    if (!cards)
        return pt_fail(err, PT_ENOMEM, "no memory for a summary");
    pt_status status = pt_reporter_cards(run, cards, err);
    if (status == PT_OK && run->rank == 0)
        status = pt_write_summary(run, pt_reporter_totals(run->reporter), cards, wall_s, err);
    free(cards);
    return status;
}

/* What is left when training is over. The weights come first, and every file gets its chance: the
 * first failure is the one that is told. */
static pt_status write_results(pt_run *run, double wall_s, pt_error *err)
{
    const pt_settings *s = run->settings;
    pt_error later = {PT_OK, ""};
    pt_status status = PT_OK;
    for (int c = 0; s->save && status == PT_OK && c < run->chunks; c++)
        status = pt_weights_save(run->blocks[c].weights, &run->blocks[c].flat,
                                 &run->partition->graph, s->save, err);
    pt_status ended = run->timeline ? pt_timeline_end(run->timeline, status ? &later : err) : PT_OK;
    status = status ? status : ended;
    ended = pt_reporter_finish(run->reporter, status ? &later : err);
    status = status ? status : ended;
    ended = s->summary ? write_summary(run, wall_s, status ? &later : err) : PT_OK;
    return status ? status : ended;
}

pt_status pt_run_train(pt_run *run, pt_error *err)
{
    int64_t start = pt_clock_ns();
    PT_TRY(pt_reporter_start(run->reporter, err));
    PT_TRY(train_epochs(run, err));
    return write_results(run, (double)(pt_clock_ns() - start) / 1e9, err);
}
