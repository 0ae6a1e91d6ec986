/* Writing steps: file by file, the manifest last. */
#include "pipetrain/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "pipetrain/file.h"
#include "pipetrain/manifest.h"
#include "pipetrain/text.h"

/* ---- files of a step --------------------------------------------------------------------------
 */

pt_status pt_store_write(const char *dir, int64_t step, const char *name, const void *data,
                         size_t bytes, pt_error *err)
{
    pt_new_file file;
    char *folder = pt_store_path(dir, step, NULL), *path = pt_store_path(dir, step, name);
    pt_status status = folder && path ? PT_OK : pt_store_no_memory(err);
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
    pt_status status = path ? pt_file_sync_folder_of(path, err) : pt_store_no_memory(err);
    if (status != PT_OK && path)
        pt_fail_within(err, "%s", path);
    free(path);
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
        return pt_store_no_memory(err);
    pt_status status = PT_OK;
    if (stat(path, &info) != 0 || (uint64_t)info.st_size != file->bytes)
        status = pt_fail(err, PT_EIO,
                         "%s was written by its rank and cannot be seen from rank 0; give a "
                         "directory on a file system that all hosts share",
                         path);
    free(path);
    return status;
}

static pt_status write_manifest(const char *dir, int64_t step, json_t *manifest, pt_error *err)
{
    char *path = pt_store_path(dir, step, PT_MANIFEST), *text = NULL;
    pt_status status = path ? pt_manifest_print(manifest, &text, err) : pt_store_no_memory(err);
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
    pt_status status =
        path && text ? pt_file_write(path, text, strlen(text), err) : pt_store_no_memory(err);
    free(path);
    free(text);
    return status;
}

static pt_status commit(const char *dir, int64_t step, json_t *manifest, const pt_store_file *files,
                        int n, pt_error *err)
{
    for (int i = 0; i < n; i++)
        PT_TRY(look_at(dir, step, &files[i], err));
    PT_TRY(pt_manifest_set_files(manifest, files, n, err));
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
