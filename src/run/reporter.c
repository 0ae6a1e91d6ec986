/* Step records travel from the last stage to rank 0 and become console lines, log lines and sums.
 *
 *   last stage: step_done ─► queue ─► mail slots ┄┄┄► rank 0: between ops ─► log, console, sums
 *
 * The queue holds an epoch at most and makes the sender independent of how often rank 0 looks; at
 * the end of an epoch both sides settle, so no record is lost and none crosses into the next epoch.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock_times.h"
#include "console.h"
#include "log_file.h"
#include "pipetrain/clock.h"
#include "progress.h"
#include "reporter.h"
#include "setup.h"

struct pt_reporter {
    pt_run *run;
    pt_mail *mail;
    pt_log_file *log;
    pt_console *console;
    bool mailing;           /* the last stage is not rank 0 itself */
    pt_step_result *queue;  /* last stage: this epoch's records … */
    int64_t queued, posted; /* … how many there are, and how many have left */
    uint32_t epoch;
    int64_t steps, arrived;   /* rank 0: of this epoch */
    bool cut;                 /* it ended early */
    pt_pass_result *gathered; /* one per rank, filled on rank 0 … */
    pt_gap_found *gaps;       /* … and of its epoch, with --gap-every */
    size_t *counts;
    run_totals totals;
};

static const int64_t PAUSE_NS = 20000; /* between looks at the mail while an epoch settles */

const char *const pt_eval_names[EVAL_SETS] = {"test", "validation"};

static bool is_root(const pt_reporter *r)
{
    return r->run->rank == 0;
}

static bool is_last(const pt_reporter *r)
{
    return r->run->rank == r->run->stages - 1;
}

static bool classifies(const pt_reporter *r)
{
    return r->run->partition->graph.loss.kind == PT_LOSS_CROSS_ENTROPY;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static pt_status allocate(pt_reporter *r, pt_error *err)
{
    size_t stages = (size_t)r->run->stages;
    size_t steps = (size_t)r->run->steps_per_epoch;
    r->gathered = calloc(stages, sizeof *r->gathered);
    r->gaps = calloc(stages, sizeof *r->gaps);
    r->counts = calloc(stages, sizeof *r->counts);
    r->totals.stages = calloc(stages, sizeof *r->totals.stages);
    r->queue = r->mailing && is_last(r) ? calloc(steps + 1, sizeof *r->queue) : NULL;
    if (!r->gathered || !r->gaps || !r->counts || !r->totals.stages ||
        (r->mailing && is_last(r) && !r->queue))
        return pt_fail(err, PT_ENOMEM, "no memory for %zu step records", steps);
    return PT_OK;
}

static double best_before(const pt_run *run, eval_set set)
{
    return set == EVAL_VALIDATION ? run->resumed.best_validation : run->resumed.best_accuracy;
}

pt_status pt_reporter_open(pt_run *run, pt_reporter **ret_reporter, pt_error *err)
{
    pt_reporter *r = calloc(1, sizeof *r);
    if (!r)
        return pt_fail(err, PT_ENOMEM, "no memory for reports");
    r->run = run;
    r->mailing = run->stages > 1;
    r->totals.train_loss = (double)NAN;
    for (int set = 0; set < EVAL_SETS; set++)
        r->totals.scores[set] = (set_score){
            .loss = (double)NAN,
            .accuracy = (double)NAN,
            .best_accuracy = run->resumed.step > 0 ? best_before(run, (eval_set)set) : (double)NAN,
        };
    r->totals.steps = r->totals.first_step = run->resumed.step;
    pt_status status = allocate(r, err);
    if (status == PT_OK && is_root(r) && run->settings->log)
        status = pt_log_file_open(run->settings->log, /*again=*/run->resumed.step > 0,
                                  classifies(r), &r->log, err);
    if (status == PT_OK && is_root(r))
        status = pt_console_open(run, &r->console, err);
    if (status != PT_OK) {
        pt_reporter_close(r);
        return status;
    }
    *ret_reporter = r;
    return PT_OK;
}

pt_status pt_reporter_join(pt_reporter *r, pt_error *err)
{
    if (!r->mailing)
        return PT_OK;
    return pt_mail_open(r->run->world, sizeof(pt_step_result), &r->mail, err);
}

void pt_reporter_close(pt_reporter *r)
{
    if (!r)
        return;
    pt_mail_close(r->mail);
    pt_log_file_close(r->log);
    pt_console_close(r->console);
    free(r->queue);
    free(r->gathered);
    free(r->gaps);
    free(r->counts);
    free(r->totals.stages);
    free(r);
}

/* ---- steps ------------------------------------------------------------------------------------
 */

static pt_status on_record(pt_reporter *r, const pt_step_result *record, pt_error *err)
{
    r->arrived++;
    r->totals.steps++;
    r->totals.samples += record->samples;
    pt_progress_step(r->run->progress, r->totals.steps);
    pt_console_step(r->console, record, r->totals.steps);
    return r->log ? pt_log_file_step(r->log, record, r->totals.steps, err) : PT_OK;
}

static void post(pt_reporter *r)
{
    while (r->posted < r->queued && pt_mail_post(r->mail, &r->queue[r->posted]))
        r->posted++;
}

static pt_status take(pt_reporter *r, pt_error *err)
{
    pt_step_result record;
    int sender = 0;
    while (pt_mail_take(r->mail, &record, &sender))
        PT_TRY(on_record(r, &record, err));
    return PT_OK;
}

pt_status pt_reporter_step(void *reporter, const pt_step_result *result, pt_error *err)
{
    pt_reporter *r = reporter;
    if (!r->mailing)
        return on_record(r, result, err);
    r->queue[r->queued++] = *result;
    post(r);
    return PT_OK;
}

pt_status pt_reporter_between(void *reporter, pt_error *err)
{
    pt_reporter *r = reporter;
    if (r->run->stop && *r->run->stop)
        return pt_fail(err, PT_EINTERRUPTED, "interrupted");
    if (!r->mailing)
        return PT_OK;
    if (is_root(r))
        return take(r, err);
    if (r->posted < r->queued)
        post(r);
    return PT_OK;
}

/* ---- epochs -----------------------------------------------------------------------------------
 */

void pt_reporter_epoch_begin(pt_reporter *r, uint32_t epoch, int64_t steps)
{
    r->epoch = epoch;
    r->steps = steps;
    r->arrived = r->queued = r->posted = 0;
    for (int c = 0; c < r->run->chunks; c++)
        pt_stage_gap_restart(r->run->blocks[c].stage);
    if (r->console)
        pt_console_epoch(r->console, epoch, steps);
}

void pt_reporter_epoch_cut(pt_reporter *r, int64_t steps)
{
    r->steps = steps;
    r->cut = true;
}

static pt_status settle(pt_reporter *r, pt_error *err)
{
    while (r->mailing && ((is_root(r) && r->arrived < r->steps) || r->posted < r->queued)) {
        PT_TRY(pt_reporter_between(r, err));
        pt_clock_sleep_ns(PAUSE_NS);
    }
    return r->mailing && !is_root(r) ? pt_mail_flush(r->mail, err) : PT_OK;
}

/* `bytes` from each rank. */
static pt_status gather(pt_reporter *r, const void *mine, size_t bytes, void *all, pt_error *err)
{
    for (int i = 0; i < r->run->stages; i++)
        r->counts[i] = bytes;
    return pt_world_gather(r->run->world, PT_FOR_METRICS, /*root=*/0, mine, bytes, r->counts, all,
                           err);
}

/* Of this rank's stages, each of which measures its own. */
static pt_gap_found gap_of(const pt_run *run)
{
    pt_gap_found sum = {0};
    for (int c = 0; c < run->chunks; c++) {
        pt_gap_found one = pt_stage_gap(run->blocks[c].stage);
        sum.measured += one.measured;
        sum.rms += one.rms;
        sum.relative += one.relative;
    }
    return sum;
}

/* Of the epoch, and of all epochs. */
static pt_status report_gaps(pt_reporter *r, pt_error *err)
{
    pt_gap_found mine = gap_of(r->run);
    if (r->run->settings->gap_every == 0)
        return PT_OK;
    PT_TRY(gather(r, &mine, sizeof mine, r->gaps, err));
    for (int i = 0; is_root(r) && i < r->run->stages; i++) {
        pt_gap_found *total = &r->totals.stages[i].gap;
        total->measured += r->gaps[i].measured;
        total->rms += r->gaps[i].rms;
        total->relative += r->gaps[i].relative;
    }
    return r->log ? pt_log_file_gap(r->log, r->epoch, r->totals.steps, r->gaps, r->run->stages, err)
                  : PT_OK;
}

static void add_up(stage_totals *total, const pt_pass_result *result)
{
    total->elapsed_ns += result->elapsed_ns;
    total->busy_ns += result->busy_ns;
    total->window_ns += result->window_ns;
    total->window_busy_ns += result->window_busy_ns;
    total->recv_wait_ns += result->recv_wait_ns;
    total->send_wait_ns += result->send_wait_ns;
    total->staleness_sum += result->staleness_sum;
    total->forwards += result->forwards;
    if (result->staleness_max > total->staleness_max)
        total->staleness_max = result->staleness_max;
}

pt_status pt_reporter_epoch_end(pt_reporter *r, const pt_pass_result *result, pt_error *err)
{
    pt_mark_place(&r->run->mark, "at the end of an epoch, for the records of its steps", /*step=*/0,
                  r->mailing && is_root(r) ? r->run->stages - 1 : -1);
    PT_TRY(settle(r, err));
    pt_mark_place(&r->run->mark, "at the end of an epoch", /*step=*/0, /*peer=*/-1);
    PT_TRY(report_gaps(r, err));
    PT_TRY(gather(r, result, sizeof *result, r->gathered, err));
    if (!is_root(r))
        return PT_OK;
    for (int i = 0; i < r->run->stages; i++)
        add_up(&r->totals.stages[i], &r->gathered[i]);
    const pt_pass_result *last = &r->gathered[r->run->stages - 1];
    r->totals.train_loss = last->loss / (double)last->samples;
    r->totals.train_ns += r->gathered[0].elapsed_ns;
    r->totals.epochs += !r->cut;
    return PT_OK;
}

pt_status pt_reporter_evaluation(pt_reporter *r, eval_set set, const pt_pass_result *result,
                                 pt_error *err)
{
    pt_mark_place(&r->run->mark, "at the end of an evaluation", /*step=*/0, /*peer=*/-1);
    uint32_t epoch = (uint32_t)r->run->epoch;
    PT_TRY(gather(r, result, sizeof *result, r->gathered, err));
    if (!is_root(r))
        return PT_OK;
    const pt_pass_result *last = &r->gathered[r->run->stages - 1];
    set_score *score = &r->totals.scores[set];
    score->loss = last->loss / (double)last->samples;
    score->accuracy = classifies(r) ? (double)last->correct / (double)last->samples : (double)NAN;
    if (isnan(score->best_accuracy) || score->accuracy > score->best_accuracy)
        score->best_accuracy = score->accuracy;
    score->evaluations++;
    pt_console_evaluation(r->console, epoch, set, &r->totals);
    return r->log ? pt_log_file_evaluation(r->log, epoch, set, &r->totals, err) : PT_OK;
}

pt_status pt_reporter_checkpoint(pt_reporter *r, int64_t step, bool committed, int files,
                                 uint64_t bytes, double seconds, pt_error *err)
{
    if (committed)
        pt_console_checkpoint(r->console, step, files, bytes, seconds);
    return r->log ? pt_log_file_checkpoint(r->log, step, committed, seconds, err) : PT_OK;
}

/* ---- start and end ----------------------------------------------------------------------------
 */

pt_status pt_reporter_start(pt_reporter *r, pt_error *err)
{
    stage_card *cards = calloc((size_t)r->run->stages, sizeof *cards);
    pt_stage_cost *costs = calloc((size_t)pt_run_all_blocks(r->run), sizeof *costs);
    pt_status status = cards && costs ? pt_reporter_cards(r->run, cards, err)
                                      : pt_fail(err, PT_ENOMEM, "no memory for the start-up table");
    if (status == PT_OK)
        status = pt_reporter_costs(r->run, costs, err);
    if (status == PT_OK && is_root(r)) {
        pt_progress_step(r->run->progress, r->totals.steps);
        pt_console_start(r->console, cards, costs);
        status = pt_clock_write(r->run, costs, err);
    }
    if (status == PT_OK && r->log)
        status = pt_log_file_run(r->log, r->run, cards, err);
    free(cards);
    free(costs);
    return status;
}

pt_status pt_reporter_finish(pt_reporter *r, pt_error *err)
{
    if (is_root(r))
        pt_console_finish(r->console, &r->totals);
    return r->log ? pt_log_file_finish(r->log, &r->totals, err) : PT_OK;
}

const run_totals *pt_reporter_totals(const pt_reporter *r)
{
    return &r->totals;
}
