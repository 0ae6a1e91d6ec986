/* Writing steps: file by file, the manifest last. Reading them is in checkpoint_read.c. */
#include "checkpoint_store.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_manifest.h"
#include "pipetrain/file.h"
#include "pipetrain/text.h"

static pt_status no_memory(pt_error *err)
{
    return pt_fail(err, PT_ENOMEM, "no memory for the path of a checkpoint");
}

/* ---- files of a step --------------------------------------------------------------------------
 */

pt_status pt_store_write(const char *dir, int64_t step, const char *name, const void *data,
                         size_t bytes, pt_error *err)
{
    pt_new_file file;
    char *folder = pt_store_path(dir, step, NULL), *path = pt_store_path(dir, step, name);
    pt_status status = folder && path ? PT_OK : no_memory(err);
    if (status == PT_OK && mkdir(folder, 0777) != 0 && errno != EEXIST)
        status = pt_fail(err, PT_EIO, "cannot be created: %s", strerror(errno));
    if (status == PT_OK)
        status = pt_file_begin(path, &file, err);
    if (status == PT_OK)
        status = pt_file_end(&file, pt_file_add(&file, data, bytes, err), err);
    if (status != PT_OK && path)
        pt_fail_within(err, "%s", path);
    free(folder);
    free(path);
    return status;
}

pt_status pt_store_sync(const char *dir, int64_t step, pt_error *err)
{
    char *path = pt_store_path(dir, step, PT_MANIFEST);
    pt_status status = path ? pt_file_sync_folder_of(path, err) : no_memory(err);
    if (status != PT_OK && path)
        pt_fail_within(err, "%s", path);
    free(path);
    return status;
}

/* ---- taking away ------------------------------------------------------------------------------
 */

static pt_status unlink_all(const char *folder, pt_error *err)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, NULL, NULL);
    pt_status status = PT_OK;
    if (n < 0 && errno != ENOENT)
        return pt_fail(err, PT_EIO, "%s cannot be read: %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        char *path = pt_text_format("%s/%s", folder, entries[i]->d_name);
        bool dots = strcmp(entries[i]->d_name, ".") == 0 || strcmp(entries[i]->d_name, "..") == 0;
        if (status == PT_OK && !path)
            status = no_memory(err);
        if (status == PT_OK && !dots && unlink(path) != 0 && errno != ENOENT)
            status = pt_fail(err, PT_EIO, "%s cannot be removed: %s", path, strerror(errno));
        free(path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static pt_status remove_folder(const char *folder, pt_error *err)
{
    PT_TRY(unlink_all(folder, err));
    if (rmdir(folder) != 0 && errno != ENOENT)
        return pt_fail(err, PT_EIO, "%s cannot be removed: %s", folder, strerror(errno));
    return PT_OK;
}

pt_status pt_store_remove(const char *dir, int64_t step, pt_error *err)
{
    char *folder = pt_store_path(dir, step, NULL),
         *manifest = pt_store_path(dir, step, PT_MANIFEST);
    pt_status status = folder && manifest ? PT_OK : no_memory(err);
    /* From here on it is half-written, whatever becomes of the rest. */
    if (status == PT_OK && unlink(manifest) != 0 && errno != ENOENT)
        status = pt_fail(err, PT_EIO, "%s cannot be removed: %s", manifest, strerror(errno));
    if (status == PT_OK)
        status = remove_folder(folder, err);
    free(folder);
    free(manifest);
    return status;
}

static pt_status remove_claimed(const char *dir, int64_t step, pt_claims *claims, pt_error *err)
{
    if (!pt_claims_take(claims, PT_CLAIM_REMOVE, step))
        return PT_OK;
    pt_status status = pt_store_remove(dir, step, err);
    pt_claims_release(claims, PT_CLAIM_REMOVE);
    return status;
}

pt_status pt_store_prune(const char *dir, int64_t newest, int keep, pt_claims *claims,
                         pt_error *err)
{
    int64_t *steps = NULL, best = -1;
    int n = 0, kept = 0;
    if (keep == 0)
        return PT_OK;
    PT_TRY(pt_store_named(dir, PT_STORE_BEST, &best, err));
    PT_TRY(pt_store_list(dir, &steps, &n, err));
    pt_status status = PT_OK;
    for (int i = 0; status == PT_OK && i < n; i++)
        if (steps[i] <= newest && pt_store_is_committed(dir, steps[i]) && kept++ >= keep &&
            steps[i] != best)
            status = remove_claimed(dir, steps[i], claims, err);
    free(steps);
    return status;
}

/* ---- committing -------------------------------------------------------------------------------
 */

/* A file that another host wrote must be seen from here, as whoever goes on must see it. */
static pt_status look_at(const char *dir, int64_t step, const pt_store_file *file, pt_error *err)
{
    struct stat info;
    char *path = pt_store_path(dir, step, file->name);
    if (!path)
        return no_memory(err);
    pt_status status = PT_OK;
    if (stat(path, &info) != 0 || (uint64_t)info.st_size != file->bytes)
        status = pt_fail(err, PT_EIO,
                         "%s was written by its rank and cannot be seen from rank 0; give a "
                         "directory on a file system that all hosts share",
                         path);
    free(path);
    return status;
}

static pt_status list_files(json_t *manifest, const pt_store_file *files, int n, pt_error *err)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "name", files[i].name, "bytes",
                                              (json_int_t)files[i].bytes, "crc32",
                                              (json_int_t)files[i].crc));
    json_object_set_new(manifest, "files", list);
    return json_array_size(list) == (size_t)n
               ? PT_OK
               : pt_fail(err, PT_ENOMEM, "no memory for the manifest");
}

static pt_status write_manifest(const char *dir, int64_t step, json_t *manifest, pt_error *err)
{
    char *path = pt_store_path(dir, step, PT_MANIFEST), *text = NULL;
    pt_status status = path ? pt_manifest_print(manifest, &text, err) : no_memory(err);
    if (status == PT_OK)
        status = pt_file_write(path, text, strlen(text), err);
    /* In place but not synced is neither here nor there. */
    if (status != PT_OK && path)
        unlink(path);
    free(text);
    free(path);
    return status;
}

pt_status pt_store_point(const char *dir, const char *name, int64_t step, pt_error *err)
{
    char *path = pt_text_format("%s/%s", dir, name);
    char *text = pt_text_format("step-%06" PRId64 "\n", step);
    pt_status status = path && text ? pt_file_write(path, text, strlen(text), err) : no_memory(err);
    free(path);
    free(text);
    return status;
}

static pt_status commit(const char *dir, int64_t step, json_t *manifest, const pt_store_file *files,
                        int n, pt_error *err)
{
    for (int i = 0; i < n; i++)
        PT_TRY(look_at(dir, step, &files[i], err));
    PT_TRY(list_files(manifest, files, n, err));
    return write_manifest(dir, step, manifest, err);
}

pt_status pt_store_commit(const char *dir, int64_t step, json_t *manifest,
                          const pt_store_file *files, int n, bool *ret_committed, pt_error *err)
{
    pt_error ignored = {PT_OK, ""};
    pt_status status = commit(dir, step, manifest, files, n, err);
    *ret_committed = status == PT_OK;
    if (status != PT_OK) { /* makes room, too, if that was what lacked */
        (void)pt_store_remove(dir, step, &ignored);
        return status;
    }
    return pt_store_point(dir, PT_STORE_LATEST, step, err);
}

/* ---- at the start -----------------------------------------------------------------------------
 */

/* What was committed and is broken stays for who wants to look at it, under another name. */
static pt_status put_aside(const char *dir, int64_t step, pt_error *err)
{
    char *folder = pt_store_path(dir, step, NULL);
    char *aside = folder ? pt_text_format("%s.broken", folder) : NULL;
    pt_status status = aside ? remove_folder(aside, err) : no_memory(err);
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
    pt_status status = path ? PT_OK : no_memory(err);
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

/* A number that has no next one is not believed. */
static int64_t launch_in(const char *text, int64_t least)
{
    int64_t launch = strtoll(text, NULL, 10);
    return launch > least && launch < INT64_MAX ? launch : least;
}

/* Numbers of launches only grow, also where a launch left no step behind. */
static pt_status count_launch(const char *dir, int64_t *ret_launch, pt_error *err)
{
    char *path = pt_text_format("%s/launch", dir), *text = NULL;
    size_t bytes = 0;
    pt_error missing = {PT_OK, ""};
    if (!path)
        return no_memory(err);
    if (pt_text_read_file(path, &text, &bytes, &missing) == PT_OK)
        *ret_launch = launch_in(text, *ret_launch);
    free(text);
    text = pt_text_format("%" PRId64 "\n", ++*ret_launch);
    pt_status status = text ? pt_file_write(path, text, strlen(text), err) : no_memory(err);
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
