/* Writes safetensors files: the header as compact JSON in the caller's order, then the data. The
 * file appears under its name by rename() after fsync(), so a crash leaves the old file or the new
 * one, never a part of either. */
#include "pipetrain/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "pipetrain/clock.h"
#include "pipetrain/text.h"

enum { SIZE_FIELD = 8, HEADER_MAX = 100000000, HEADER_ALIGN = 8, TEMPORARY_TRIES = 100 };

static const char METADATA[] = "__metadata__";

/* Hands `value` over to object[key], which must be new. Takes the reference in any case. */
static pt_status add(json_t *object, const char *key, json_t *value, pt_error *err)
{
    if (!value)
        return pt_fail(err, PT_EINPUT, "what belongs to \"%s\" is not UTF-8, or memory ran out",
                       key);
    if (json_object_get(object, key)) {
        json_decref(value);
        return pt_fail(err, PT_EINPUT, "the name \"%s\" is given twice", key);
    }
    if (json_object_set_new(object, key, value) != 0)
        return pt_fail(err, PT_EINPUT, "the name \"%s\" is not UTF-8, or memory ran out", key);
    return PT_OK;
}

/* Bytes that the shape makes; false when they are more than there can be, or the shape is bad. */
static bool shape_bytes(const pt_st_tensor *tensor, size_t *ret_bytes)
{
    if (tensor->ndim < 0 || tensor->ndim > PT_SAFETENSORS_DIMS)
        return false;
    size_t bytes = pt_dtype_bytes(tensor->dtype);
    for (int i = 0; i < tensor->ndim; i++)
        if (tensor->dims[i] < 0 || __builtin_mul_overflow(bytes, tensor->dims[i], &bytes))
            return false;
    *ret_bytes = bytes;
    return true;
}

static pt_status add_tensor(json_t *header, const pt_st_tensor *tensor, size_t *offset,
                            pt_error *err)
{
    size_t bytes, begin = *offset, end;
    if (strcmp(tensor->name, METADATA) == 0)
        return pt_fail(err, PT_EINPUT, "a tensor cannot be called %s", METADATA);
    if (!shape_bytes(tensor, &bytes) || bytes != tensor->bytes ||
        __builtin_add_overflow(begin, bytes, &end))
        return pt_fail(err, PT_EINTERNAL, "tensor \"%s\": its shape does not make %zu bytes",
                       tensor->name, tensor->bytes);
    json_t *shape = json_array();
    for (int i = 0; i < tensor->ndim; i++)
        json_array_append_new(shape, json_integer(tensor->dims[i])); /* a NULL shape fails below */
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", pt_dtype_name(tensor->dtype),
                              "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
    PT_TRY(add(header, tensor->name, entry, err));
    *offset = end;
    return PT_OK;
}

static pt_status fill_header(json_t *header, const pt_st_tensor *tensors, int n,
                             const pt_st_metadata *metadata, int n_metadata, pt_error *err)
{
    if (n_metadata > 0) {
        json_t *object = json_object();
        PT_TRY(add(header, METADATA, object, err));
        for (int i = 0; i < n_metadata; i++)
            PT_TRY(add(object, metadata[i].key, json_string(metadata[i].value), err));
    }
    size_t offset = 0;
    for (int i = 0; i < n; i++)
        PT_TRY(add_tensor(header, &tensors[i], &offset, err));
    return PT_OK;
}

/* Makes the size field and the padded header as one run of bytes; free() it. */
static pt_status make_head(const pt_st_tensor *tensors, int n, const pt_st_metadata *metadata,
                           int n_metadata, char **ret_head, size_t *ret_bytes, pt_error *err)
{
    pt_status status = PT_OK;
    char *text = NULL;
    json_t *header = json_object();
    if (!header)
        return pt_fail(err, PT_ENOMEM, "no memory for its header");
    PT_GOTO(status, fill_header(header, tensors, n, metadata, n_metadata, err));
    text = json_dumps(header, JSON_COMPACT); /* in the order of insertion */
    size_t length = text ? strlen(text) : 0;
    size_t padded = (length + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
    char *head = text ? malloc(SIZE_FIELD + padded) : NULL;
    if (!head) {
        status = pt_fail(err, PT_ENOMEM, "no memory for its header");
        goto out;
    }
    if (padded > HEADER_MAX) {
        free(head);
        status = pt_fail(err, PT_EINPUT, "its header would be larger than %d bytes", HEADER_MAX);
        goto out;
    }
    uint64_t field = padded; /* little-endian: safetensors.c asserts that the machine is, too */
    memcpy(head, &field, SIZE_FIELD);
    memcpy(head + SIZE_FIELD, text, length);
    memset(head + SIZE_FIELD + length, ' ', padded - length);
    *ret_head = head;
    *ret_bytes = SIZE_FIELD + padded;
out:
    free(text);
    json_decref(header);
    return status;
}

static pt_status write_all(int fd, const void *data, size_t bytes, pt_error *err)
{
    const char *next = data;
    while (bytes > 0) {
        ssize_t wrote = write(fd, next, bytes);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return pt_fail(err, PT_EIO, "cannot be written: %s", strerror(errno));
        next += wrote;
        bytes -= (size_t)wrote;
    }
    return PT_OK;
}

/* Opens a new file beside `path`. O_EXCL and not mkstemp(): the file shall have the usual mode. */
static pt_status open_temporary(const char *path, char **ret_name, int *ret_fd, pt_error *err)
{
    char *name = NULL;
    int fd = -1;
    for (int i = 0; i < TEMPORARY_TRIES && fd < 0; i++) {
        free(name);
        name = pt_text_format("%s.%ld-%" PRIx64 ".tmp", path, (long)getpid(), pt_clock_ns());
        if (!name)
            return pt_fail(err, PT_ENOMEM, "no memory for the name of a temporary file");
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0) {
        pt_status status = pt_fail(err, PT_EIO, "cannot be created: %s", strerror(errno));
        free(name);
        return status;
    }
    *ret_name = name;
    *ret_fd = fd;
    return PT_OK;
}

/* Makes the rename itself last. Some file systems cannot sync a folder, and a folder that one may
 * write into but not read cannot be opened for it; that is theirs to answer. */
static pt_status sync_folder_of(const char *path, pt_error *err)
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

/* Writes everything to the open file and syncs it. */
static pt_status fill_file(int fd, const char *head, size_t head_bytes, const pt_st_tensor *tensors,
                           int n, pt_error *err)
{
    PT_TRY(write_all(fd, head, head_bytes, err));
    for (int i = 0; i < n; i++)
        PT_TRY(write_all(fd, tensors[i].data, tensors[i].bytes, err));
    if (fsync(fd) != 0)
        return pt_fail(err, PT_EIO, "cannot be synced: %s", strerror(errno));
    return PT_OK;
}

static pt_status replace(const char *path, const char *head, size_t head_bytes,
                         const pt_st_tensor *tensors, int n, pt_error *err)
{
    char *temporary = NULL;
    int fd = -1;
    PT_TRY(open_temporary(path, &temporary, &fd, err));
    pt_status status = fill_file(fd, head, head_bytes, tensors, n, err);
    if (close(fd) != 0 && status == PT_OK)
        status = pt_fail(err, PT_EIO, "cannot be closed: %s", strerror(errno));
    if (status == PT_OK && rename(temporary, path) != 0)
        status = pt_fail(err, PT_EIO, "cannot be put in place: %s", strerror(errno));
    if (status != PT_OK)
        unlink(temporary);
    free(temporary);
    return status == PT_OK ? sync_folder_of(path, err) : status;
}

pt_status pt_safetensors_write(const char *path, const pt_st_tensor *tensors, int n,
                               const pt_st_metadata *metadata, int n_metadata, pt_error *err)
{
    char *head = NULL;
    size_t head_bytes = 0;
    pt_status status = make_head(tensors, n, metadata, n_metadata, &head, &head_bytes, err);
    if (status == PT_OK)
        status = replace(path, head, head_bytes, tensors, n, err);
    free(head);
    return status == PT_OK ? PT_OK : pt_fail_within(err, "%s", path);
}
