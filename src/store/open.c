/* Readying a directory for a run. */
#include "pipetrain/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "pipetrain/file.h"
#include "pipetrain/text.h"

#define LAUNCH "launch"

/* What was committed and is broken stays for who wants to look at it, under another name. */
static pt_status put_aside(const char *dir, int64_t step, pt_error *err)
{
    char *folder = pt_store_path(dir, step, NULL);
    char *aside = folder ? pt_text_format("%s.broken", folder) : NULL;
    pt_status status = aside ? pt_store_remove_folder(aside, err) : pt_store_no_memory(err);
    if (status == PT_OK && rename(folder, aside) != 0)
        status = pt_fail(err, PT_EIO, "%s cannot be renamed: %s", folder, strerror(errno));
    free(folder);
    free(aside);
    return status;
}

/* Never a step that will be put aside, nor one that is gone. */
static pt_status point_best_again(const char *dir, int64_t step, int64_t best, pt_error *err)
{
    int64_t named = -1;
    pt_error unreadable = {PT_OK, ""};
    bool known = pt_store_named(dir, PT_STORE_BEST, &named, &unreadable) == PT_OK;
    if (known && named >= 0 && named <= step && pt_store_is_committed(dir, named))
        return PT_OK;
    if (best > 0)
        return pt_store_point(dir, PT_STORE_BEST, best, err);
    if (known && named < 0)
        return PT_OK;
    char *path = pt_text_format("%s/" PT_STORE_BEST, dir);
    pt_status status = path ? PT_OK : pt_store_no_memory(err);
    if (status == PT_OK && unlink(path) != 0)
        status = pt_fail(err, PT_EIO, "%s cannot be removed: %s", path, strerror(errno));
    free(path);
    return status;
}

static pt_status clear_newer(const char *dir, int64_t step, pt_error *err)
{
    int64_t *steps = NULL;
    int n = 0;
    PT_TRY(pt_store_list(dir, &steps, &n, err));
    pt_status status = PT_OK;
    for (int i = 0; status == PT_OK && i < n; i++) {
        bool committed = pt_store_is_committed(dir, steps[i]);
        if (!committed)
            status = pt_store_remove(dir, steps[i], err);
        else if (step < 0)
            status = pt_fail(err, PT_EINPUT,
                             "--checkpoint %s: it holds step %" PRId64 " of another run; write "
                             "--resume %s to go on from there, or give an empty directory",
                             dir, steps[i], dir);
        else if (steps[i] > step)
            status = put_aside(dir, steps[i], err);
    }
    free(steps);
    return status;
}

/* Numbers of launches only grow, also where a launch left no step behind. */
static pt_status count_launch(const char *dir, int64_t *ret_launch, pt_error *err)
{
    int64_t before = pt_store_launches(dir);
    *ret_launch = 1 + (before > *ret_launch ? before : *ret_launch);
    char *path = pt_text_format("%s/" LAUNCH, dir);
    char *text = pt_text_format("%" PRId64 "\n", *ret_launch);
    pt_status status =
        path && text ? pt_file_write(path, text, strlen(text), err) : pt_store_no_memory(err);
    free(text);
    free(path);
    return status;
}

pt_status pt_store_open(const char *dir, int64_t step, int64_t best, int64_t *ret_launch,
                        pt_error *err)
{
    int64_t launch = *ret_launch;
    if (!*dir)
        return pt_fail(err, PT_EINPUT, "--checkpoint: write the name of a directory");
    PT_TRY(pt_file_make_folders(dir, err));
    /* Before what they may name now is gone. */
    if (step >= 0)
        PT_TRY(pt_store_point(dir, PT_STORE_LATEST, step, err));
    PT_TRY(point_best_again(dir, step, best, err));
    PT_TRY(clear_newer(dir, step, err));
    PT_TRY(count_launch(dir, &launch, err));
    *ret_launch = launch;
    return PT_OK;
}

/* A number that has no next one is not believed. */
static int64_t counted_launches(const char *dir)
{
    char *path = pt_text_format("%s/" LAUNCH, dir), *text = NULL;
    size_t bytes = 0;
    int64_t launches = 0;
    pt_error ignored = {PT_OK, ""};
    if (path && pt_text_read_file(path, &text, &bytes, &ignored) == PT_OK)
        launches = strtoll(text, NULL, 10);
    free(text);
    free(path);
    return launches > 0 && launches < PT_STORE_MOST ? launches : 0;
}

int64_t pt_store_launches(const char *dir)
{
    int64_t launches = counted_launches(dir);
    pt_store_hosts hosts = {NULL, 0};
    pt_error ignored = {PT_OK, ""};
    if (pt_store_read_hosts(dir, &hosts, &ignored) != PT_OK)
        return launches;
    for (int i = 0; i < hosts.n; i++)
        if (hosts.list[i].last_launch > launches)
            launches = hosts.list[i].last_launch;
    pt_store_clear_hosts(&hosts);
    return launches;
}
