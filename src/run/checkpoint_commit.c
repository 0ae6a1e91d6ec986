/* From a copy in memory to a step that is there: the thread's jobs, the ranks' reports, the commit.
 */
#include "checkpoint_internal.h"

#include <stdio.h>

#include "checkpoint_manifest.h"
#include "pipetrain/clock.h"
#include "pipetrain/log.h"
#include "reporter.h"
#include "setup.h"

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

pt_status pt_checkpoint_prune(pt_checkpoint *c, pt_error *err)
{
    return pt_store_prune(c->dir, c->stand.step, (int)c->run->settings->keep,
                          pt_upload_claims(c->upload), err);
}

static pt_status commit(void *context, pt_error *err)
{
    pt_checkpoint *c = context;
    PT_TRY(pt_store_commit(c->dir, c->stand.step, c->manifest, c->list, c->n_list, &c->committed,
                           err));
    return pt_checkpoint_prune(c, err);
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
    c->heard_of[sender] = true;
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
    while (pt_checkpoint_is_root(c) && c->mail && pt_mail_take(c->mail, &r, &sender))
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
        if (pt_checkpoint_is_root(c))
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

/* ---- from phase to phase ----------------------------------------------------------------------
 */

void pt_checkpoint_begin_writing(pt_checkpoint *c)
{
    c->posted = c->heard = c->n_list = 0;
    c->committed = false;
    c->failed.status = PT_OK;
    for (int i = 0; pt_checkpoint_is_root(c) && i < c->run->partition->graph.n_nodes; i++)
        c->found[i].bytes = 0;
    for (int r = 0; pt_checkpoint_is_root(c) && r < c->run->stages; r++)
        c->heard_of[r] = false;
    c->phase = WRITING;
    pt_writer_start(c->writer, write_layers, c);
}

pt_status pt_checkpoint_between(pt_checkpoint *c, pt_error *err)
{
    pt_error why;
    pt_status status = PT_OK;
    pt_upload_between(c->upload);
    if (c->phase == IDLE && c->better.step > 0)
        pt_checkpoint_begin_naming(c);
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
            c->phase = pt_checkpoint_is_root(c) ? GATHERING : IDLE;
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
        pt_checkpoint_end_naming(c, status, &why);
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
        [GATHERING] = "for its report on the checkpoint of step",
        [COMMITTING] = "at its disk, with the commit of step",
        [NAMING] = "at its disk, with the name of the best step, after step",
    };
    int peer = c->phase == REPORTING ? 0 : -1;
    if (c->phase == GATHERING && c->heard < c->run->stages)
        while (c->heard_of[++peer])
            continue;
    pt_mark_place(&c->run->mark, places[c->phase], c->stand.step, peer);
}

pt_status pt_checkpoint_settle(pt_checkpoint *c, pt_error *err)
{
    phase marked = IDLE;
    int heard = 0;
    while (c->phase != IDLE || c->better.step > 0) {
        if (c->phase != marked || c->heard != heard)
            mark(c);
        marked = c->phase;
        heard = c->heard;
        PT_TRY(pt_reporter_between(c->run->reporter, err));
        PT_TRY(pt_checkpoint_between(c, err));
        if (pt_world_is_aborting(c->run->world))
            return pt_fail(err, PT_EINTERRUPTED, "another rank has failed");
        if (c->phase != IDLE)
            pt_clock_sleep_ns(PT_CHECKPOINT_PAUSE_NS);
    }
    return PT_OK;
}
