/* Training: epochs, evaluations, and the files that remain. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "pipetrain/clock.h"
#include "pipetrain/run.h"
#include "pipetrain/weights_io.h"
#include "reporter.h"
#include "setup.h"

static const pt_span *span_of(const pt_run *run, uint32_t epoch, int64_t steps)
{
    if (epoch < run->settings->sync_epochs)
        return &run->sync;
    return steps == run->steps_per_epoch ? &run->full : &run->last;
}

/* ---- what the engine tells --------------------------------------------------------------------
 */

static pt_status step_done(void *context, const pt_step_result *result, pt_error *err)
{
    return pt_reporter_step(((pt_run *)context)->reporter, result, err);
}

static pt_status between(void *context, pt_error *err)
{
    pt_run *run = context;
    PT_TRY(pt_reporter_between(run->reporter, err));
    return run->checkpoint ? pt_checkpoint_between(run->checkpoint, err) : PT_OK;
}

static pt_status step_begins(void *context, int64_t step, bool *ret_last, pt_error *err)
{
    pt_run *run = context;
    int64_t before = run->epoch * run->steps_per_epoch;
    return pt_checkpoint_step_begins(run->checkpoint, before + step + 1, ret_last, err);
}

pt_engine_hooks pt_run_hooks(pt_run *run)
{
    return (pt_engine_hooks){
        .context = run,
        .step_done = step_done,
        .between = between,
        .step_begins = run->checkpoint ? step_begins : NULL,
    };
}

/* ---- epochs -----------------------------------------------------------------------------------
 */

/* From step `first` of the epoch on; a checkpoint ends a pass, and another one goes on. */
static pt_status train_parts(pt_run *run, const pt_span *span, pt_pass *pass, int64_t steps,
                             pt_pass_result *sums, pt_error *err)
{
    while (pass->first_step < steps) {
        PT_TRY(pt_engine_run(run->engine, pass, span->schedule->synchronous, sums, err));
        pass->first_step = sums->end_step;
        pt_mark_place(&run->mark, "at the end of a pass", /*step=*/0, /*peer=*/-1);
        if (run->timeline)
            PT_TRY(pt_timeline_add(run->timeline, err));
        if (run->checkpoint)
            PT_TRY(pt_checkpoint_take(
                run->checkpoint, run->epoch * run->steps_per_epoch + sums->end_step, sums, err));
    }
    return PT_OK;
}

static pt_status train_epoch(pt_run *run, int64_t first, int64_t steps, pt_error *err)
{
    const pt_span *span = span_of(run, (uint32_t)run->epoch, steps);
    pt_pass_result sums = first > 0 ? run->resumed.sums : (pt_pass_result){0};
    pt_sampler_epoch(run->train_order, (uint32_t)run->epoch);
    pt_pass pass = {
        .list = &span->schedule->ranks[run->rank],
        .mode = PT_TRAIN,
        .epoch = (uint32_t)run->epoch,
        .plan = run->epoch_plan,
        .sampler = run->train_order,
        .source = {run->train_data, &run->partition->normalisation, &run->augmentation},
        .want_loss = true,
        .first_step = first,
        .before = &sums,
    };
    pt_reporter_epoch_begin(run->reporter, (uint32_t)run->epoch, steps - first);
    pt_status status = train_parts(run, span, &pass, steps, &sums, err);
    run->halted = status == PT_ESTOPPED;
    if (run->halted)
        pt_reporter_epoch_cut(run->reporter, pass.first_step - first);
    else
        PT_TRY(status);
    PT_TRY(pt_reporter_epoch_end(run->reporter, &sums, err));
    return status;
}

static pt_status evaluate(pt_run *run, eval_set set, pt_error *err)
{
    bool held_out = set == EVAL_VALIDATION;
    const pt_span *span = held_out ? &run->validation : &run->test;
    const pt_dataset *data = held_out ? run->train_data : run->test_data;
    pt_pass pass = {
        .list = &span->schedule->ranks[run->rank],
        .mode = PT_EVAL,
        .epoch = (uint32_t)run->epoch,
        .plan = held_out ? run->validation_plan : run->test_plan,
        .sampler = held_out ? run->validation_order : run->test_order,
        .source = {data, &run->partition->normalisation, NULL},
        .want_loss = true,
    };
    pt_pass_result result;
    PT_TRY(pt_engine_run(run->engine, &pass, /*synchronous=*/true, &result, err));
    return pt_reporter_evaluation(run->reporter, set, &result, err);
}

bool pt_run_evaluates(const pt_run *run, int64_t epoch)
{
    int64_t every = run->settings->eval_every;
    return every > 0 && ((epoch + 1) % every == 0 || epoch + 1 == run->epochs);
}

static pt_status validate(pt_run *run, pt_error *err)
{
    const run_totals *totals = pt_reporter_totals(run->reporter);
    const set_score *found = &totals->scores[EVAL_VALIDATION];
    PT_TRY(evaluate(run, EVAL_VALIDATION, err));
    if (run->checkpoint)
        pt_checkpoint_score(run->checkpoint,
                            &(pt_score){totals->steps, found->loss, found->accuracy});
    return PT_OK;
}

/* Choices are made by what is held out: then the test set is looked at once, when all are made. */
static pt_status evaluate_epoch(pt_run *run, pt_error *err)
{
    bool validates = run->validation_plan.samples > 0;
    if (validates)
        PT_TRY(validate(run, err));
    return validates && run->epoch + 1 < run->epochs ? PT_OK : evaluate(run, EVAL_TEST, err);
}

/* It was the last epoch then, say, and was evaluated for that. */
static bool is_scored_again(const pt_run *run)
{
    return run->settings->keep_best && run->resumed.is_best &&
           run->resumed.step == (run->epoch + 1) * run->steps_per_epoch;
}

/* --steps ended the run before inside an epoch, and that step is the best: nobody has its score but
 * its weights, which are here once more. */
static pt_status score_again(pt_run *run, pt_error *err)
{
    bool ends_epoch = run->resumed.step % run->steps_per_epoch == 0;
    if (!run->settings->keep_best || !run->resumed.is_best || ends_epoch)
        return PT_OK;
    return validate(run, err);
}

/* An epoch that was whole when its last checkpoint was taken is evaluated (again): whether that had
 * been done, nobody knows. */
static pt_status train_epochs(pt_run *run, pt_error *err)
{
    int64_t done = run->resumed.step;
    run->epoch = done > 0 ? (done - 1) / run->steps_per_epoch : 0;
    PT_TRY(score_again(run, err));
    for (; run->epoch < run->epochs; run->epoch++) {
        int64_t before = run->epoch * run->steps_per_epoch, left = run->total_steps - before;
        int64_t steps = left < run->steps_per_epoch ? left : run->steps_per_epoch;
        PT_TRY(train_epoch(run, done > before ? done - before : 0, steps, err));
        if (pt_run_evaluates(run, run->epoch) || is_scored_again(run))
            PT_TRY(evaluate_epoch(run, err));
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

/* What is left when training is over. The weights come first, if they are the final ones, and every
 * file gets its chance: the first failure is the one that is told. */
static pt_status write_results(pt_run *run, double wall_s, pt_error *err)
{
    const pt_settings *s = run->settings;
    pt_error later = {PT_OK, ""};
    pt_status status = PT_OK;
    pt_mark_place(&run->mark, "at the end of the run", /*step=*/0, /*peer=*/-1);
    for (int c = 0; s->save && !run->halted && status == PT_OK && c < run->chunks; c++)
        status = pt_weights_save(run->blocks[c].weights, &run->blocks[c].flat,
                                 &run->partition->graph, s->save, err);
    pt_status ended = run->timeline ? pt_timeline_end(run->timeline, status ? &later : err) : PT_OK;
    status = status ? status : ended;
    ended = run->checkpoint ? pt_checkpoint_finish(run->checkpoint, status ? &later : err) : PT_OK;
    status = status ? status : ended;
    ended = pt_reporter_finish(run->reporter, status ? &later : err);
    status = status ? status : ended;
    ended = s->summary ? write_summary(run, wall_s, status ? &later : err) : PT_OK;
    status = status ? status : ended;
    return status == PT_OK && run->checkpoint ? pt_checkpoint_finish_upload(run->checkpoint, err)
                                              : status;
}

pt_status pt_run_train(pt_run *run, pt_error *err)
{
    int64_t start = pt_clock_ns();
    pt_mark_place(&run->mark, "at the start of the run", /*step=*/0, /*peer=*/-1);
    PT_TRY(pt_reporter_start(run->reporter, err));
    pt_status status = train_epochs(run, err);
    if (status != PT_OK && !run->halted)
        return status;
    PT_TRY(write_results(run, (double)(pt_clock_ns() - start) / 1e9, err));
    return status;
}
