/* Files that are whole or not there: written beside their place, synced, then renamed. A crash at
 * any moment leaves the old file or the new one, never a part of either. */
#ifndef PIPETRAIN_FILE_H
#define PIPETRAIN_FILE_H

#include <stddef.h>

#include "pipetrain/status.h"

/* A file on its way. Pure data; zero it, or let pt_file_begin write it. */
typedef struct pt_new_file {
    char *path, *temporary;
    int fd;
} pt_new_file;

/* Opens a new file beside `path`. PT_EIO here and below says what the system refused, and not
 * where: the caller knows. */
pt_status pt_file_begin(const char *path, pt_new_file *ret_file, pt_error *err);
pt_status pt_file_add(pt_new_file *file, const void *data, size_t bytes, pt_error *err);
/* Syncs the file and puts it in its place, unless `status` is a failure: then what was written is
 * taken away. Returns `status`, or its own failure, which leaves nothing behind either. */
pt_status pt_file_end(pt_new_file *file, pt_status status, pt_error *err);

/* Makes names in the folder of `path` last: a rename, or a removal. */
pt_status pt_file_sync_folder_of(const char *path, pt_error *err);

/* All of it: begin, add, end, and the folder. PT_EIO names the path. */
pt_status pt_file_write(const char *path, const void *data, size_t bytes, pt_error *err);

/* Makes a folder and those above it, as far as they are missing. PT_EINPUT says which cannot be
 * made. */
pt_status pt_file_make_folders(const char *folder, pt_error *err);

#endif
