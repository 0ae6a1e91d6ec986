/* Uploading: which steps, how often, and what was said of it. The command itself is
 * command.c's business. */
#include "pipetrain/upload.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "claims.h"
#include "command.h"
#include "pipetrain/clock.h"
#include "pipetrain/file.h"
#include "pipetrain/log.h"
#include "pipetrain/manifest.h"
#include "pipetrain/store.h"
#include "pipetrain/text.h"
#include "pipetrain/writer.h"

#define MARK "uploaded"

/* Pauses before a command that failed is started again: three times. */
static const int64_t PAUSES_NS[] = {1000000000, 2000000000, 4000000000};
enum { TRIES = 1 + sizeof PAUSES_NS / sizeof *PAUSES_NS };
static const int64_t LOOK_NS = 10000000; /* between looks at `stop` during a pause */

struct pt_upload {
    const char *dir, *command;
    pt_writer *thread;
    pt_claims *claims;
    atomic_bool stop;
    bool woken, running; /* the owner's */
};

/* ---- life -------------------------------------------------------------------------------------
 */

pt_status pt_upload_new(const char *dir, const char *command, pt_upload **ret_upload, pt_error *err)
{
    pt_upload *u = calloc(1, sizeof *u);
    if (!u)
        return pt_fail(err, PT_ENOMEM, "no memory for an upload");
    u->dir = dir;
    u->command = command;
    u->woken = true;
    atomic_init(&u->stop, false);
    pt_status status = pt_claims_new(&u->claims, err);
    if (status == PT_OK)
        status = pt_writer_new(&u->thread, err);
    if (status == PT_OK)
        *ret_upload = u;
    else
        pt_upload_free(u);
    return status;
}

void pt_upload_free(pt_upload *u)
{
    if (!u)
        return;
    atomic_store(&u->stop, true);
    pt_writer_free(u->thread);
    pt_claims_free(u->claims);
    free(u);
}

pt_claims *pt_upload_claims(pt_upload *u)
{
    return u ? u->claims : NULL;
}

/* ---- a step -----------------------------------------------------------------------------------
 */

static bool is_marked(const pt_upload *u, int64_t step)
{
    char *path = pt_store_path(u->dir, step, MARK);
    bool marked = path && access(path, F_OK) == 0;
    free(path);
    return marked;
}

static pt_status mark(const pt_upload *u, int64_t step, pt_error *err)
{
    char *path = pt_store_path(u->dir, step, MARK);
    pt_status status =
        path ? pt_file_write(path, "", 0, err) : pt_fail(err, PT_ENOMEM, "no memory for a path");
    free(path);
    return status;
}

/* The launch that wrote it; its bytes are looked at by who goes on from it. */
static pt_status launch_of(const pt_upload *u, int64_t step, int64_t *ret_launch, pt_error *err)
{
    char *path = pt_store_path(u->dir, step, PT_MANIFEST), *text = NULL;
    size_t bytes = 0;
    json_t *manifest = NULL;
    pt_status status = path ? pt_text_read_file(path, &text, &bytes, err)
                            : pt_fail(err, PT_ENOMEM, "no memory for a path");
    if (status == PT_OK)
        status = pt_manifest_parse(text, bytes, &manifest, err);
    if (status == PT_OK)
        status = pt_manifest_count(manifest, "launch", ret_launch, err);
    json_decref(manifest);
    free(text);
    free(path);
    return status;
}

static void pause_for(const pt_upload *u, int64_t ns)
{
    int64_t end = pt_clock_ns() + ns;
    while (!atomic_load(&u->stop) && pt_clock_ns() < end)
        pt_clock_sleep_ns(LOOK_NS);
}

static pt_status try_to_upload(pt_upload *u, int64_t step, pt_error *err)
{
    int64_t launch = 0;
    PT_TRY(launch_of(u, step, &launch, err));
    char *folder = pt_store_path(u->dir, step, NULL);
    pt_status status = folder ? PT_EIO : pt_fail(err, PT_ENOMEM, "no memory for a path");
    for (int i = 0; status == PT_EIO && i < TRIES && !atomic_load(&u->stop); i++) {
        if (i > 0)
            pause_for(u, PAUSES_NS[i - 1]);
        status = pt_command_run(u->command, folder, step, launch, &u->stop, err);
    }
    free(folder);
    return status == PT_OK ? mark(u, step, err) : status;
}

static void upload(pt_upload *u, int64_t step)
{
    pt_error why = {PT_OK, ""};
    if (!pt_claims_take(u->claims, PT_CLAIM_UPLOAD, step))
        return;
    /* Now it stays, if it is still there. */
    if (pt_store_is_committed(u->dir, step) && !is_marked(u, step) &&
        try_to_upload(u, step, &why) != PT_OK && !atomic_load(&u->stop))
        pt_log(PT_LOG_WARNING,
               "--upload: step-%06" PRId64 ": %s; it is tried again after the next checkpoint, or "
               "when a run goes on from here",
               step, why.text);
    pt_claims_release(u->claims, PT_CLAIM_UPLOAD);
}

static pt_status upload_all(void *context, pt_error *err)
{
    pt_upload *u = context;
    int64_t *steps = NULL;
    int n = 0;
    PT_TRY(pt_store_list(u->dir, &steps, &n, err));
    for (int i = n - 1; i >= 0 && !atomic_load(&u->stop); i--)
        upload(u, steps[i]);
    free(steps);
    return PT_OK;
}

/* ---- the owner's thread -----------------------------------------------------------------------
 */

void pt_upload_wake(pt_upload *u)
{
    if (u)
        u->woken = true;
}

bool pt_upload_between(pt_upload *u)
{
    pt_error why = {PT_OK, ""};
    pt_status status = PT_OK;
    if (!u || (!u->woken && !u->running))
        return true;
    if (u->running && !pt_writer_is_done(u->thread, &status, &why))
        return false;
    if (status != PT_OK)
        pt_log(PT_LOG_WARNING, "--upload: %s", why.text);
    u->running = u->woken;
    u->woken = false;
    if (u->running)
        pt_writer_start(u->thread, upload_all, u);
    return !u->running;
}
