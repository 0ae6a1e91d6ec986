/* Taking checkpoints: when, on rank 0's word, and what the run waits for. */
#include "checkpoint_internal.h"

#include <stdlib.h>

#include "checkpoint_manifest.h"
#include "pipetrain/clock.h"
#include "pipetrain/log.h"
#include "reporter.h"
#include "setup.h"

static const int64_t WORD_NS = 2000000000; /* who waits for longer, says so */

/* ---- life -------------------------------------------------------------------------------------
 */

pt_status pt_checkpoint_predict_bytes(const pt_run *run, size_t *ret_bytes, pt_error *err)
{
    pt_image *image = NULL;
    *ret_bytes = 0;
    if (!run->settings->checkpoint || run->backend->row->on_device)
        return PT_OK;
    PT_TRY(pt_image_new(run, &image, err));
    *ret_bytes = pt_image_bytes(image);
    pt_image_free(image);
    return PT_OK;
}

static pt_status allocate_root(pt_checkpoint *c, pt_error *err)
{
    const pt_graph *graph = &c->run->partition->graph;
    size_t nodes = (size_t)graph->n_nodes;
    c->manifest = pt_manifest_new(c->run);
    c->names = calloc(nodes, sizeof *c->names);
    c->found = calloc(nodes, sizeof *c->found);
    c->list = calloc(nodes, sizeof *c->list);
    c->heard_of = calloc((size_t)c->run->stages, sizeof *c->heard_of);
    bool ok = c->manifest && c->names && c->found && c->list && c->heard_of;
    for (int i = 0; ok && i < graph->n_nodes; i++)
        ok = (c->names[i] = pt_weights_file_name(graph, i)) != NULL;
    return ok ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for checkpoints");
}

static pt_status open_parts(pt_checkpoint *c, pt_error *err)
{
    double seconds = 0;
    PT_TRY(pt_config_every(c->run->settings, &c->every_steps, &seconds, err));
    c->every_ns = (int64_t)(seconds * 1e9);
    PT_TRY(pt_image_new(c->run, &c->image, err));
    PT_TRY(pt_image_allocate(c->image, err));
    c->crcs = calloc((size_t)pt_image_count(c->image) + 1, sizeof *c->crcs);
    if (!c->crcs)
        return pt_fail(err, PT_ENOMEM, "no memory for checkpoints");
    if (pt_checkpoint_is_root(c))
        PT_TRY(allocate_root(c, err));
    c->best = c->run->resumed.best;
    c->committed = c->run->resumed.here; /* the epoch that it ends is evaluated again */
    if (c->committed)
        c->stand = c->run->resumed;
    if (pt_checkpoint_is_root(c) && c->run->settings->upload)
        PT_TRY(pt_upload_new(c->dir, c->run->settings->upload, &c->upload, err));
    return pt_writer_new(&c->writer, err);
}

pt_status pt_checkpoint_open(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (!s->checkpoint || s->infer)
        return PT_OK;
    pt_checkpoint *c = calloc(1, sizeof *c);
    if (!c)
        return pt_fail(err, PT_ENOMEM, "no memory for checkpoints");
    c->run = run;
    c->dir = s->checkpoint;
    run->checkpoint = c;
    return open_parts(c, err);
}

pt_status pt_checkpoint_join(pt_run *run, pt_error *err)
{
    if (!run->checkpoint || run->stages == 1)
        return PT_OK;
    return pt_mail_open(run->world, sizeof(report), &run->checkpoint->mail, err);
}

void pt_checkpoint_close(pt_checkpoint *c)
{
    if (!c)
        return;
    pt_writer_free(c->writer);
    pt_upload_free(c->upload);
    pt_mail_close(c->mail);
    pt_image_free(c->image);
    json_decref(c->manifest);
    for (int i = 0; c->names && i < c->run->partition->graph.n_nodes; i++)
        free(c->names[i]);
    free(c->names);
    free(c->found);
    free(c->list);
    free(c->heard_of);
    free(c->crcs);
    free(c);
}

/* ---- rank 0's word ----------------------------------------------------------------------------
 */

/* A score is of the weights at an epoch's end: these must be there to be kept. */
static bool will_be_scored(const pt_run *run, int64_t step)
{
    return run->settings->keep_best && step % run->steps_per_epoch == 0 &&
           pt_run_evaluates(run, step / run->steps_per_epoch - 1);
}

static bool is_due(const pt_checkpoint *c, int64_t step)
{
    if (step == c->run->total_steps || will_be_scored(c->run, step))
        return true;
    if (c->every_steps > 0)
        return step % c->every_steps == 0;
    if (c->every_ns > 0)
        return pt_clock_ns() - c->taken_ns >= c->every_ns;
    return step % c->run->steps_per_epoch == 0;
}

/* The last step is followed by the end anyway. */
static word word_of(const pt_checkpoint *c, int64_t step)
{
    const pt_run *run = c->run;
    if (run->halt && *run->halt && step < run->total_steps)
        return STOP;
    return is_due(c, step) ? CHECKPOINT : GO_ON;
}

pt_status pt_checkpoint_step_begins(pt_checkpoint *c, int64_t step, bool *ret_last, pt_error *err)
{
    int32_t said = GO_ON;
    if (c->taken_ns == 0)
        c->taken_ns = pt_clock_ns();
    if (pt_checkpoint_is_root(c))
        said = (int32_t)word_of(c, step);
    pt_mark_place(&c->run->mark, "at the begin of step", step, /*peer=*/-1);
    PT_TRY(
        pt_world_broadcast(c->run->world, PT_FOR_CHECKPOINT, /*root=*/0, &said, sizeof said, err));
    c->word = (word)said;
    *ret_last = c->word != GO_ON;
    return PT_OK;
}

/* ---- taking one -------------------------------------------------------------------------------
 */

/* Rank 0 knows whether the checkpoint is there; all leave with its word. If it is not, rank 0 fails
 * alone, as with any other failure, and ends the others. */
static pt_status stop(pt_checkpoint *c, pt_error *err)
{
    pt_status status = PT_OK;
    PT_TRY(pt_checkpoint_settle(c, err));
    if (pt_checkpoint_is_root(c) && !c->committed)
        return pt_fail(err, PT_EIO,
                       "told to stop with a checkpoint, but that of step %lld could not be written",
                       (long long)c->stand.step);
    if (pt_checkpoint_is_root(c))
        status = pt_fail(err, PT_ESTOPPED,
                         "stopped after step %lld with a checkpoint in %s; run the same command "
                         "with --resume %s to go on",
                         (long long)c->stand.step, c->dir, c->dir);
    pt_mark_place(&c->run->mark, "at the commit of step", c->stand.step, /*peer=*/-1);
    return pt_world_agree(c->run->world, status, err, NULL);
}

static pt_resumed stand_of(const pt_run *run, int64_t step, const pt_pass_result *sums)
{
    const run_totals *totals = pt_reporter_totals(run->reporter);
    return (pt_resumed){
        .step = step,
        .launch = run->launch,
        .sums = *sums,
        .best_accuracy = totals->scores[EVAL_TEST].best_accuracy,
        .best_validation = totals->scores[EVAL_VALIDATION].best_accuracy,
        .best = pt_checkpoint_best(run->checkpoint),
    };
}

pt_status pt_checkpoint_take(pt_checkpoint *c, int64_t step, const pt_pass_result *sums,
                             pt_error *err)
{
    int32_t go = 0;
    bool stops = c->word == STOP;
    if (c->word == GO_ON)
        return PT_OK;
    c->word = GO_ON;
    /* Nobody begins before the one before is committed: its reports are not mixed with these. */
    PT_TRY(pt_checkpoint_settle(c, err));
    pt_mark_place(&c->run->mark, "at the checkpoint of step", step, /*peer=*/-1);
    PT_TRY(pt_world_broadcast(c->run->world, PT_FOR_CHECKPOINT, /*root=*/0, &go, sizeof go, err));
    PT_TRY(pt_image_take(c->image, err));
    c->taken_ns = pt_clock_ns();
    c->stand = stand_of(c->run, step, sums);
    pt_checkpoint_begin_writing(c);
    return stops ? stop(c, err) : PT_OK;
}

pt_status pt_checkpoint_finish(pt_checkpoint *c, pt_error *err)
{
    PT_TRY(pt_checkpoint_settle(c, err));
    if (c->mail)
        PT_TRY(pt_mail_flush(c->mail, err));
    if (pt_checkpoint_is_root(c) && c->stand.step > 0 && !c->committed)
        return pt_fail(err, PT_EIO, "the last checkpoint, of step %lld, could not be written",
                       (long long)c->stand.step);
    return PT_OK;
}

pt_status pt_checkpoint_finish_upload(pt_checkpoint *c, pt_error *err)
{
    int64_t start = pt_clock_ns();
    bool said = false;
    while (!pt_upload_between(c->upload)) {
        /* A command may take its time, and that is no stall. */
        pt_mark_place(&c->run->mark, "at the command of --upload", /*step=*/0, /*peer=*/-1);
        PT_TRY(pt_reporter_between(c->run->reporter, err));
        pt_clock_sleep_ns(PT_CHECKPOINT_PAUSE_NS);
        if (said || pt_clock_ns() - start < WORD_NS)
            continue;
        pt_log(PT_LOG_INFO, "--upload: all else is done, and the run waits for the command");
        said = true;
    }
    return PT_OK;
}
