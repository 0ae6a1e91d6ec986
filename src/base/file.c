/* Whole files by way of temporary ones, and folders. */
#include "pipetrain/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipetrain/clock.h"
#include "pipetrain/text.h"

enum { TEMPORARY_TRIES = 100 };

/* O_EXCL and not mkstemp(): the file shall have the usual mode. */
static pt_status open_temporary(pt_new_file *f, pt_error *err)
{
    for (int i = 0; i < TEMPORARY_TRIES && f->fd < 0; i++) {
        free(f->temporary);
        f->temporary =
            pt_text_format("%s.%ld-%" PRIx64 ".tmp", f->path, (long)getpid(), pt_clock_ns());
        if (!f->temporary)
            return pt_fail(err, PT_ENOMEM, "no memory for the name of a temporary file");
        f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (f->fd < 0 && errno != EEXIST)
            break;
    }
    return f->fd < 0 ? pt_fail(err, PT_EIO, "cannot be created: %s", strerror(errno)) : PT_OK;
}

static void clear(pt_new_file *f)
{
    free(f->path);
    free(f->temporary);
    *f = (pt_new_file){.fd = -1};
}

pt_status pt_file_begin(const char *path, pt_new_file *ret_file, pt_error *err)
{
    pt_new_file f = {.path = strdup(path), .fd = -1};
    pt_status status =
        f.path ? open_temporary(&f, err) : pt_fail(err, PT_ENOMEM, "no memory for a path");
    if (status == PT_OK)
        *ret_file = f;
    else
        clear(&f);
    return status;
}

pt_status pt_file_add(pt_new_file *f, const void *data, size_t bytes, pt_error *err)
{
    const char *next = data;
    while (bytes > 0) {
        ssize_t wrote = write(f->fd, next, bytes);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return pt_fail(err, PT_EIO, "cannot be written: %s", strerror(errno));
        next += wrote;
        bytes -= (size_t)wrote;
    }
    return PT_OK;
}

pt_status pt_file_end(pt_new_file *f, pt_status status, pt_error *err)
{
    if (status == PT_OK && fsync(f->fd) != 0)
        status = pt_fail(err, PT_EIO, "cannot be synced: %s", strerror(errno));
    if (close(f->fd) != 0 && status == PT_OK)
        status = pt_fail(err, PT_EIO, "cannot be closed: %s", strerror(errno));
    if (status == PT_OK && rename(f->temporary, f->path) != 0)
        status = pt_fail(err, PT_EIO, "cannot be put in place: %s", strerror(errno));
    if (status != PT_OK)
        unlink(f->temporary);
    clear(f);
    return status;
}

/* Some file systems cannot sync a folder, and a folder that one may write into but not read cannot
 * be opened for it; that is theirs to answer. */
pt_status pt_file_sync_folder_of(const char *path, pt_error *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == path ? strdup("/")
                   : slash       ? strndup(path, (size_t)(slash - path))
                                 : strdup(".");
    if (!folder)
        return pt_fail(err, PT_ENOMEM, "no memory for the name of its folder");
    pt_status status = PT_OK;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 ? errno != EACCES : fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP)
        status = pt_fail(err, PT_EIO, "its folder cannot be synced: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    free(folder);
    return status;
}

pt_status pt_file_write(const char *path, const void *data, size_t bytes, pt_error *err)
{
    pt_new_file f;
    pt_status status = pt_file_begin(path, &f, err);
    if (status == PT_OK)
        status = pt_file_end(&f, pt_file_add(&f, data, bytes, err), err);
    if (status == PT_OK)
        status = pt_file_sync_folder_of(path, err);
    return status == PT_OK ? PT_OK : pt_fail_within(err, "%s", path);
}

pt_status pt_file_make_folders(const char *folder, pt_error *err)
{
    char *path = strdup(folder);
    pt_status status = path ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for a path");
    for (char *c = path ? path + (*path != 0) : NULL; status == PT_OK; c++) {
        if (*c && *c != '/')
            continue;
        char was = *c;
        *c = 0;
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            status =
                pt_fail(err, PT_EINPUT, "cannot make the directory %s: %s", path, strerror(errno));
        *c = was;
        if (!was)
            break;
    }
    free(path);
    return status;
}
