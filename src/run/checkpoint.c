/* Taking checkpoints: rank 0's word, the copy, the thread, the reports, the commit. */
#include "checkpoint.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_image.h"
#include "checkpoint_manifest.h"
#include "checkpoint_store.h"
#include "checkpoint_upload.h"
#include "checkpoint_writer.h"
#include "pipetrain/clock.h"
#include "pipetrain/log.h"
#include "reporter.h"
#include "setup.h"

/* What rank 0 says of a step as it begins. */
typedef enum word { GO_ON, CHECKPOINT, STOP } word;

/* Where the present checkpoint is. Ranks but 0 are done when they have reported. */
typedef enum phase { IDLE, WRITING, REPORTING, GATHERING, COMMITTING, NAMING } phase;

enum { REPORT_TEXT = 512, LAST = -1 };
static const int64_t PAUSE_NS = 50000;     /* between looks while a checkpoint is waited for */
static const int64_t WORD_NS = 2000000000; /* who waits for longer, says so */

/* One file that a rank has written; or, with the node LAST, that it has done what it can. */
typedef struct report {
    int64_t node;
    uint64_t bytes;
    uint32_t crc;
    int32_t status;
    pt_pass_result sums; /* LAST; those of the last rank count */
    char text[REPORT_TEXT];
} report;

struct pt_checkpoint {
    pt_run *run;
    const char *dir;
    pt_image *image;
    pt_writer *writer;
    pt_mail *mail; /* NULL: one rank */
    int64_t every_steps, every_ns;
    int64_t taken_ns; /* when the last one was, or the run began */
    word word;        /* of the step that began last */
    phase phase;
    pt_resumed stand; /* of the run when it was taken; step 0: none was yet */
    uint32_t *crcs;   /* of this rank's files */
    int posted;       /* reports that have left */
    report last;      /* this rank's */
    /* rank 0 */
    json_t *manifest;
    char **names;        /* of each node's file, or NULL */
    report *found;       /* of each node: bytes 0 where none came */
    pt_store_file *list; /* the same, without holes … */
    int n_list;          /* … and how many */
    int heard;           /* ranks that have done what they can */
    report failed;       /* of the first that failed; status PT_OK: none */
    bool committed;
    pt_upload *upload; /* NULL: nobody asked for it */
    pt_score best;     /* that `best` names; step 0: none … */
    pt_score better;   /* … and one that it shall name; likewise */
};

static bool is_root(const pt_checkpoint *c)
{
    return c->run->rank == 0;
}

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
    bool ok = c->manifest && c->names && c->found && c->list;
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
    if (is_root(c))
        PT_TRY(allocate_root(c, err));
    c->best = c->run->resumed.best;
    c->committed = c->run->resumed.here; /* the epoch that it ends is evaluated again */
    if (c->committed)
        c->stand = c->run->resumed;
    if (is_root(c) && c->run->settings->upload)
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
    if (is_root(c))
        said = (int32_t)word_of(c, step);
    pt_mark_place(&c->run->mark, "at the begin of step", step, /*peer=*/-1);
    PT_TRY(
        pt_world_broadcast(c->run->world, PT_FOR_CHECKPOINT, /*root=*/0, &said, sizeof said, err));
    c->word = (word)said;
    *ret_last = c->word != GO_ON;
    return PT_OK;
}

/* ---- jobs of the thread -----------------------------------------------------------------------
 */

static pt_status write_layers(void *context, pt_error *err)
{
    pt_checkpoint *c = context;
    for (int i = 0; i < pt_image_count(c->image); i++) {
        pt_image_file file = pt_image_at(c->image, i);
        c->crcs[i] = pt_store_checksum(0, file.data, file.bytes);
        PT_TRY(pt_store_write(c->dir, c->stand.step, file.name, file.data, file.bytes, err));
    }
    return pt_image_count(c->image) > 0 ? pt_store_sync(c->dir, c->stand.step, err) : PT_OK;
}

static pt_status prune(pt_checkpoint *c, pt_error *err)
{
    return pt_store_prune(c->dir, c->stand.step, (int)c->run->settings->keep,
                          pt_upload_claims(c->upload), err);
}

static pt_status commit(void *context, pt_error *err)
{
    pt_checkpoint *c = context;
    PT_TRY(pt_store_commit(c->dir, c->stand.step, c->manifest, c->list, c->n_list, &c->committed,
                           err));
    return prune(c, err);
}

/* The one that was the best is then one of many. */
static pt_status name_best(void *context, pt_error *err)
{
    pt_checkpoint *c = context;
    PT_TRY(pt_store_point(c->dir, PT_STORE_BEST, c->better.step, err));
    c->best = c->better;
    return prune(c, err);
}

static pt_status give_up(void *context, pt_error *err)
{
    pt_checkpoint *c = context;
    pt_error ignored = {PT_OK, ""};
    (void)pt_store_remove(c->dir, c->stand.step, &ignored);
    return pt_fail(err, (pt_status)c->failed.status, "%s", c->failed.text);
}

/* ---- reports ----------------------------------------------------------------------------------
 */

static report report_at(const pt_checkpoint *c, int i)
{
    if (i == pt_image_count(c->image))
        return c->last;
    pt_image_file file = pt_image_at(c->image, i);
    return (report){.node = file.node, .bytes = file.bytes, .crc = c->crcs[i]};
}

static void hear(pt_checkpoint *c, int sender, const report *r)
{
    if (r->node != LAST) {
        c->found[r->node] = *r;
        return;
    }
    c->heard++;
    if (sender == c->run->stages - 1)
        c->stand.sums = r->sums;
    if (r->status == PT_OK || c->failed.status != PT_OK)
        return;
    c->failed = *r;
    if (c->run->stages > 1)
        snprintf(c->failed.text, sizeof c->failed.text, "rank %d: %.*s", sender, REPORT_TEXT - 32,
                 r->text);
}

static void take_mail(pt_checkpoint *c)
{
    report r;
    int sender = 0;
    while (is_root(c) && c->mail && pt_mail_take(c->mail, &r, &sender))
        hear(c, sender, &r);
}

/* A rank that failed names no files. True when all has left. */
static bool has_reported(pt_checkpoint *c)
{
    int n = pt_image_count(c->image);
    if (c->last.status != PT_OK && c->posted < n)
        c->posted = n;
    for (; c->posted <= n; c->posted++) {
        report r = report_at(c, c->posted);
        if (is_root(c))
            hear(c, /*sender=*/0, &r);
        else if (!pt_mail_post(c->mail, &r))
            return false;
    }
    return true;
}

static pt_status begin_commit(pt_checkpoint *c, pt_error *err)
{
    c->phase = COMMITTING;
    if (c->failed.status != PT_OK) {
        pt_writer_start(c->writer, give_up, c);
        return PT_OK;
    }
    c->n_list = 0;
    for (int i = 0; i < c->run->partition->graph.n_nodes; i++)
        if (c->found[i].bytes > 0)
            c->list[c->n_list++] = (pt_store_file){c->names[i], c->found[i].bytes, c->found[i].crc};
    PT_TRY(pt_manifest_set(c->manifest, c->run, &c->stand, err));
    pt_writer_start(c->writer, commit, c);
    return PT_OK;
}

static pt_status tell(pt_checkpoint *c, pt_status status, const pt_error *why, pt_error *err)
{
    uint64_t bytes = 0;
    for (int i = 0; i < c->n_list; i++)
        bytes += c->list[i].bytes;
    if (c->committed)
        pt_upload_wake(c->upload);
    if (!c->committed)
        pt_log(PT_LOG_WARNING, "no checkpoint of step %lld: %s", (long long)c->stand.step,
               why->text);
    else if (status != PT_OK)
        pt_log(PT_LOG_WARNING, "the checkpoint of step %lld is there, but %s",
               (long long)c->stand.step, why->text);
    double seconds = (double)(pt_clock_ns() - c->taken_ns) / 1e9;
    return pt_reporter_checkpoint(c->run->reporter, c->stand.step, c->committed, c->n_list, bytes,
                                  seconds, err);
}

/* ---- the best one -----------------------------------------------------------------------------
 */

static bool is_better(const pt_score *one, const pt_score *other)
{
    if (!isfinite(one->loss))
        return false;
    if (other->step == 0)
        return true;
    bool classifies = !isnan(one->accuracy);
    return classifies && one->accuracy != other->accuracy ? one->accuracy > other->accuracy
                                                          : one->loss < other->loss;
}

void pt_checkpoint_score(pt_checkpoint *c, const pt_score *score)
{
    if (is_root(c) && c->run->settings->keep_best && is_better(score, &c->best))
        c->better = *score;
}

pt_score pt_checkpoint_best(const pt_checkpoint *c)
{
    return c ? c->best : (pt_score){0};
}

/* When its checkpoint is through: a later one waits for that. */
static void begin_naming(pt_checkpoint *c)
{
    if (c->committed && c->stand.step == c->better.step) {
        c->phase = NAMING;
        pt_writer_start(c->writer, name_best, c);
        return;
    }
    pt_log(PT_LOG_WARNING, "the best step so far, %lld, has no checkpoint in %s that could be kept",
           (long long)c->better.step, c->dir);
    c->better = (pt_score){0};
}

static void end_naming(pt_checkpoint *c, pt_status status, const pt_error *why)
{
    if (status != PT_OK)
        pt_log(PT_LOG_WARNING, "step %lld is the best so far, but %s", (long long)c->better.step,
               why->text);
    c->better = (pt_score){0};
}

/* ---- from phase to phase ----------------------------------------------------------------------
 */

pt_status pt_checkpoint_between(pt_checkpoint *c, pt_error *err)
{
    pt_error why;
    pt_status status = PT_OK;
    pt_upload_between(c->upload);
    if (c->phase == IDLE && c->better.step > 0)
        begin_naming(c);
    if (c->phase == IDLE)
        return PT_OK;
    take_mail(c);
    switch (c->phase) {
    case IDLE:
        break;
    case WRITING:
        if (!pt_writer_is_done(c->writer, &status, &why))
            break;
        c->last = (report){.node = LAST, .status = status, .sums = c->stand.sums};
        snprintf(c->last.text, sizeof c->last.text, "%.*s", REPORT_TEXT - 1, why.text);
        c->phase = REPORTING;
        break;
    case REPORTING:
        if (has_reported(c))
            c->phase = is_root(c) ? GATHERING : IDLE;
        break;
    case GATHERING:
        return c->heard == c->run->stages ? begin_commit(c, err) : PT_OK;
    case COMMITTING:
        if (!pt_writer_is_done(c->writer, &status, &why))
            break;
        c->phase = IDLE;
        return tell(c, status, &why, err);
    case NAMING:
        if (!pt_writer_is_done(c->writer, &status, &why))
            break;
        c->phase = IDLE;
        end_naming(c, status, &why);
        break;
    }
    return PT_OK;
}

/* For whoever asks what is waited for. */
static void mark(const pt_checkpoint *c)
{
    static const char *const places[] = {
        [IDLE] = "at the checkpoint of step",
        [WRITING] = "at its disk, with the checkpoint of step",
        [REPORTING] = "to take its report on the checkpoint of step",
        [GATHERING] = "at the reports of all ranks on the checkpoint of step",
        [COMMITTING] = "at its disk, with the commit of step",
        [NAMING] = "at its disk, with the name of the best step, after step",
    };
    pt_mark_place(&c->run->mark, places[c->phase], c->stand.step, c->phase == REPORTING ? 0 : -1);
}

/* The steps' records, too, are looked at while a checkpoint is waited for. */
static pt_status settle(pt_checkpoint *c, pt_error *err)
{
    phase marked = IDLE;
    while (c->phase != IDLE || c->better.step > 0) {
        if (c->phase != marked)
            mark(c);
        marked = c->phase;
        PT_TRY(pt_reporter_between(c->run->reporter, err));
        PT_TRY(pt_checkpoint_between(c, err));
        if (pt_world_is_aborting(c->run->world))
            return pt_fail(err, PT_EINTERRUPTED, "another rank has failed");
        if (c->phase != IDLE)
            pt_clock_sleep_ns(PAUSE_NS);
    }
    return PT_OK;
}

/* Rank 0 knows whether the checkpoint is there; all leave with its word. If it is not, rank 0 fails
 * alone, as with any other failure, and ends the others. */
static pt_status stop(pt_checkpoint *c, pt_error *err)
{
    pt_status status = PT_OK;
    PT_TRY(settle(c, err));
    if (is_root(c) && !c->committed)
        return pt_fail(err, PT_EIO,
                       "told to stop with a checkpoint, but that of step %lld could not be written",
                       (long long)c->stand.step);
    if (is_root(c))
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
    PT_TRY(settle(c, err));
    pt_mark_place(&c->run->mark, "at the checkpoint of step", step, /*peer=*/-1);
    PT_TRY(pt_world_broadcast(c->run->world, PT_FOR_CHECKPOINT, /*root=*/0, &go, sizeof go, err));
    PT_TRY(pt_image_take(c->image, err));
    c->taken_ns = pt_clock_ns();
    c->stand = stand_of(c->run, step, sums);
    c->posted = c->heard = c->n_list = 0;
    c->committed = false;
    c->failed.status = PT_OK;
    for (int i = 0; is_root(c) && i < c->run->partition->graph.n_nodes; i++)
        c->found[i].bytes = 0;
    c->phase = WRITING;
    pt_writer_start(c->writer, write_layers, c);
    return stops ? stop(c, err) : PT_OK;
}

pt_status pt_checkpoint_finish(pt_checkpoint *c, pt_error *err)
{
    PT_TRY(settle(c, err));
    if (c->mail)
        PT_TRY(pt_mail_flush(c->mail, err));
    if (is_root(c) && c->stand.step > 0 && !c->committed)
        return pt_fail(err, PT_EIO, "the last checkpoint, of step %lld, could not be written",
                       (long long)c->stand.step);
    return PT_OK;
}

pt_status pt_checkpoint_finish_upload(pt_checkpoint *c, pt_error *err)
{
    int64_t start = pt_clock_ns();
    bool said = false;
    while (!pt_upload_between(c->upload)) {
        PT_TRY(pt_reporter_between(c->run->reporter, err));
        pt_clock_sleep_ns(PAUSE_NS);
        if (said || pt_clock_ns() - start < WORD_NS)
            continue;
        pt_log(PT_LOG_INFO, "--upload: all else is done, and the run waits for the command");
        said = true;
    }
    return PT_OK;
}
