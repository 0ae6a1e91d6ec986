/* --resume: which step a run goes on from. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "checkpoint_image.h"
#include "checkpoint_manifest.h"
#include "pipetrain/log.h"
#include "pipetrain/store.h"

/* A step that is not good is passed over, for an older one. ret_good: NULL when there is none. */
static pt_status newest_good(const char *dir, json_t **ret_good, int *ret_committed, pt_error *err)
{
    int64_t *steps = NULL;
    int n = 0, committed = 0;
    *ret_good = NULL;
    PT_TRY(pt_store_list(dir, &steps, &n, err));
    for (int i = 0; i < n && !*ret_good; i++) {
        pt_error why = {PT_OK, ""};
        bool there = pt_store_is_committed(dir, steps[i]);
        committed += there;
        if (!there)
            pt_log(PT_LOG_WARNING, "--resume %s: step-%06" PRId64 " is half-written: passed over",
                   dir, steps[i]);
        else if (pt_store_read(dir, steps[i], ret_good, &why) != PT_OK)
            pt_log(PT_LOG_WARNING, "--resume %s: step-%06" PRId64 " is broken: passed over: %s",
                   dir, steps[i], why.text);
    }
    free(steps);
    *ret_committed = committed;
    return PT_OK;
}

static pt_status take_up(pt_run *run, const json_t *manifest, pt_error *err)
{
    const char *dir = run->settings->resume;
    pt_status status = pt_manifest_fits(manifest, run, err);
    if (status == PT_OK)
        status = pt_manifest_get(manifest, &run->resumed, err);
    return status == PT_OK ? PT_OK : pt_fail_within(err, "--resume %s", dir);
}

static pt_status find_step(pt_run *run, pt_error *err)
{
    const char *dir = run->settings->resume;
    json_t *good = NULL;
    int committed = 0;
    if (!dir)
        return PT_OK;
    PT_TRY(newest_good(dir, &good, &committed, err));
    pt_status status = PT_OK;
    if (good)
        status = take_up(run, good, err);
    else if (committed > 0)
        status = pt_fail(err, PT_EINPUT,
                         "--resume %s: none of its %d steps is whole; give another directory, or "
                         "leave --resume out to start from the beginning",
                         dir, committed);
    else
        pt_log(PT_LOG_INFO,
               "--resume %s: no checkpoint is there yet: training starts from the "
               "beginning",
               dir);
    json_decref(good);
    return status;
}

static bool is_same_folder(const char *one, const char *other)
{
    struct stat a, b;
    if (strcmp(one, other) == 0)
        return true;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* The best step so far counts where it can be kept: whole, and in --checkpoint. A step's own score
 * is found after its checkpoint, and so it is in no manifest but later ones. */
static void look_at_best(pt_run *run)
{
    pt_resumed *r = &run->resumed;
    json_t *manifest = NULL;
    pt_error why = {PT_OK, ""};
    int64_t named = -1;
    r->is_best = r->here &&
                 pt_store_named(run->settings->resume, PT_STORE_BEST, &named, &why) == PT_OK &&
                 named == r->step;
    if (r->is_best)
        r->best = (pt_score){0};
    if (r->best.step == 0)
        return;
    why.code = PT_OK; /* of what can no longer be read nothing is known */
    if (!r->here)
        pt_fail(&why, PT_EINPUT, "it is not in --checkpoint %s", run->settings->checkpoint);
    else if (pt_store_read(run->settings->resume, r->best.step, &manifest, &why) == PT_OK)
        json_decref(manifest);
    if (why.code == PT_OK)
        return;
    pt_log(PT_LOG_WARNING, "--resume %s: step-%06" PRId64 ", the best so far, is passed over: %s",
           run->settings->resume, r->best.step, why.text);
    r->best = (pt_score){0};
}

/* Of the run that this one goes on from, those that left no step included. */
static int64_t launches_before(const pt_run *run)
{
    const char *dir = run->settings->resume;
    int64_t counted = dir ? pt_store_launches(dir) : 0;
    return counted > run->resumed.launch ? counted : run->resumed.launch;
}

pt_status pt_checkpoint_find(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (run->rank != 0 || s->infer)
        return PT_OK;
    PT_TRY(find_step(run, err));
    run->launch = launches_before(run);
    if (!s->checkpoint)
        return PT_OK;
    pt_resumed *r = &run->resumed;
    r->here = r->step > 0 && is_same_folder(s->resume, s->checkpoint);
    look_at_best(run);
    return pt_store_open(s->checkpoint, r->here ? r->step : -1, r->best.step, &run->launch, err);
}

pt_status pt_checkpoint_share(pt_run *run, pt_error *err)
{
    if (run->settings->infer)
        return PT_OK;
    PT_TRY(pt_world_broadcast(run->world, PT_FOR_CHECKPOINT, /*root=*/0, &run->launch,
                              sizeof run->launch, err));
    return pt_world_broadcast(run->world, PT_FOR_CHECKPOINT, /*root=*/0, &run->resumed,
                              sizeof run->resumed, err);
}

pt_status pt_checkpoint_load(pt_run *run, pt_error *err)
{
    pt_image *image = NULL;
    if (run->resumed.step == 0)
        return PT_OK;
    char *folder = pt_store_path(run->settings->resume, run->resumed.step, NULL);
    pt_status status =
        folder ? pt_image_new(run, &image, err) : pt_fail(err, PT_ENOMEM, "no memory for a path");
    if (status == PT_OK)
        status = pt_image_load(image, folder, run->resumed.step, err);
    pt_image_free(image);
    free(folder);
    return status;
}
