/* Reads safetensors files: maps the file, parses the header, checks everything, then hands out
 * pointers into the mapping.
 *
 *     +---------+----------------------------+------------------------------+
 *     | u64 LE  | {"conv1.weight": {…}, …}   | tensor | tensor | …         |
 *     | header  | JSON, padded with spaces   | back to back, in any order   |
 *     | bytes   |                            | of the header's entries      |
 *     +---------+----------------------------+------------------------------+
 *
 * A file comes from anywhere, so no number in it is used before it was compared with what is really
 * there: every product is checked for overflow, and the tensors, sorted by offset, must follow each
 * other without a hole from the first byte of the data to the last. */
#include "pipetrain/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor data is used as it is stored");

enum { SIZE_FIELD = 8, HEADER_MAX = 100000000, NAME_TEXT = 96 };

static const char METADATA[] = "__metadata__";

static const struct {
    const char *name;
    size_t bytes;
} DTYPES[] = {
    [PT_F32] = {"F32", 4},
    [PT_I64] = {"I64", 8},
    [PT_I32] = {"I32", 4},
    [PT_U8] = {"U8", 1},
};

enum { N_DTYPES = sizeof DTYPES / sizeof *DTYPES };

/* A tensor on its way in: where its bytes lie, counted from the start of the data. */
struct entry {
    pt_st_tensor tensor;
    size_t begin, end;
    size_t rank; /* position in the header, so that sorting empty tensors is stable */
    void *copy;  /* aligned copy that tensor.data points to, or NULL */
};

struct pt_safetensors {
    void *map;
    size_t map_bytes;
    const unsigned char *data; /* first byte after the header */
    size_t data_bytes;
    json_t *header; /* owns the names and the metadata */
    struct entry *entries;
    int n_entries;
};

size_t pt_dtype_bytes(pt_dtype dtype)
{
    return DTYPES[dtype].bytes;
}

const char *pt_dtype_name(pt_dtype dtype)
{
    return DTYPES[dtype].name;
}

/* A name from a file, fit to be shown: short and without control characters. */
static const char *shown(const char *name, char text[NAME_TEXT])
{
    size_t n = strnlen(name, NAME_TEXT - 1);
    for (size_t i = 0; i < n; i++)
        text[i] = (unsigned char)name[i] < ' ' || name[i] == 0x7F ? '?' : name[i];
    text[n] = 0;
    return text;
}

static pt_status map_file(pt_safetensors *file, const char *path, pt_error *err)
{
    pt_status status = PT_OK;
    /* Without O_NONBLOCK a named pipe would be waited for; regular files do not heed it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        bool missing = errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG;
        return missing ? pt_fail(err, PT_EINPUT, "no such file")
                       : pt_fail(err, PT_EIO, "cannot be opened: %s", strerror(errno));
    }
    struct stat info;
    if (fstat(fd, &info) != 0) {
        status = pt_fail(err, PT_EIO, "cannot be read: %s", strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        status = pt_fail(err, PT_EINPUT, "is not a regular file; a safetensors file is wanted");
    } else if (info.st_size < SIZE_FIELD) {
        status = pt_fail(err, PT_EINPUT,
                         "holds %lld bytes, too few for a safetensors file: it is truncated",
                         (long long)info.st_size);
    } else {
        size_t bytes = (size_t)info.st_size;
        void *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            status = pt_fail(err, PT_EIO, "cannot be mapped: %s", strerror(errno));
        } else {
            file->map = map;
            file->map_bytes = bytes;
        }
    }
    close(fd);
    return status;
}

static pt_status parse_header(pt_safetensors *file, pt_error *err)
{
    uint64_t bytes;
    memcpy(&bytes, file->map, SIZE_FIELD);
    const char *text = (const char *)file->map + SIZE_FIELD;
    size_t rest = file->map_bytes - SIZE_FIELD;
    if (bytes > HEADER_MAX)
        return pt_fail(err, PT_EINPUT,
                       "is no safetensors file: a header of %" PRIu64
                       " bytes is announced, at most %d are allowed",
                       bytes, HEADER_MAX);
    if (bytes > rest)
        return pt_fail(err, PT_EINPUT,
                       "is truncated: a header of %" PRIu64 " bytes is announced, %zu are left",
                       bytes, rest);
    if (bytes == 0 || text[0] != '{')
        return pt_fail(err, PT_EINPUT, "is no safetensors file: the header does not begin with {");
    json_error_t where;
    file->header = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (!file->header) {
        char reason[NAME_TEXT];
        return pt_fail(err, PT_EINPUT, "the header is not right: %s (byte %d of it)",
                       shown(where.text, reason), where.position);
    }
    file->data = (const unsigned char *)text + bytes;
    file->data_bytes = rest - bytes;
    return PT_OK;
}

static pt_status check_metadata(const json_t *metadata, pt_error *err)
{
    const char *key;
    json_t *value;
    char name[NAME_TEXT];
    if (!json_is_object(metadata))
        return pt_fail(err, PT_EINPUT, "%s is not an object of texts", METADATA);
    json_object_foreach ((json_t *)metadata, key, value)
        if (!json_is_string(value))
            return pt_fail(err, PT_EINPUT, "%s: \"%s\" is not a text", METADATA, shown(key, name));
    return PT_OK;
}

/* Reads a JSON integer that is not negative. */
static bool read_count(const json_t *value, int64_t *ret_count)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret_count = json_integer_value(value);
    return true;
}

static pt_status read_dtype(const json_t *value, pt_dtype *ret_dtype, pt_error *err)
{
    const char *name = json_string_value(value);
    if (!name)
        return pt_fail(err, PT_EINPUT, "\"dtype\" is missing or not a text");
    for (int i = 0; i < N_DTYPES; i++) {
        if (strcmp(name, DTYPES[i].name) == 0) {
            *ret_dtype = (pt_dtype)i;
            return PT_OK;
        }
    }
    char text[NAME_TEXT];
    return pt_fail(err, PT_EINPUT, "dtype \"%s\" is not supported; store it as F32, I64, I32 or U8",
                   shown(name, text));
}

/* Fills the dimensions and the bytes that they make. */
static pt_status read_dims(const json_t *value, pt_st_tensor *tensor, pt_error *err)
{
    if (!json_is_array(value))
        return pt_fail(err, PT_EINPUT, "\"shape\" is missing or not a list");
    size_t ndim = json_array_size(value);
    if (ndim > PT_SAFETENSORS_DIMS)
        return pt_fail(err, PT_EINPUT, "\"shape\" has %zu dimensions, at most %d are supported",
                       ndim, PT_SAFETENSORS_DIMS);
    tensor->ndim = (int)ndim;
    tensor->bytes = pt_dtype_bytes(tensor->dtype);
    for (size_t i = 0; i < ndim; i++) {
        if (!read_count(json_array_get(value, i), &tensor->dims[i]))
            return pt_fail(err, PT_EINPUT, "\"shape\" holds something that is not a size");
        if (__builtin_mul_overflow(tensor->bytes, tensor->dims[i], &tensor->bytes))
            return pt_fail(err, PT_EINPUT, "\"shape\" makes more bytes than there can be");
    }
    return PT_OK;
}

static pt_status read_offsets(const pt_safetensors *file, const json_t *value, struct entry *entry,
                              pt_error *err)
{
    int64_t begin, end;
    if (json_array_size(value) != 2 || !read_count(json_array_get(value, 0), &begin) ||
        !read_count(json_array_get(value, 1), &end))
        return pt_fail(err, PT_EINPUT, "\"data_offsets\" is missing or not [begin, end]");
    if (begin > end)
        return pt_fail(err, PT_EINPUT,
                       "\"data_offsets\" end before they begin (%" PRId64 ", %" PRId64 ")", begin,
                       end);
    if ((uint64_t)end > file->data_bytes)
        return pt_fail(err, PT_EINPUT,
                       "ends at byte %" PRId64 " of the data, but the file holds %zu: it is "
                       "truncated or damaged",
                       end, file->data_bytes);
    if ((uint64_t)(end - begin) != entry->tensor.bytes)
        return pt_fail(err, PT_EINPUT, "its shape makes %zu bytes, its offsets %" PRId64,
                       entry->tensor.bytes, end - begin);
    entry->begin = (size_t)begin;
    entry->end = (size_t)end;
    return PT_OK;
}

static pt_status read_entry(const pt_safetensors *file, const json_t *value, struct entry *entry,
                            pt_error *err)
{
    if (!json_is_object(value))
        return pt_fail(err, PT_EINPUT, "is not an object with dtype, shape and data_offsets");
    PT_TRY(read_dtype(json_object_get(value, "dtype"), &entry->tensor.dtype, err));
    PT_TRY(read_dims(json_object_get(value, "shape"), &entry->tensor, err));
    return read_offsets(file, json_object_get(value, "data_offsets"), entry, err);
}

static pt_status read_entries(pt_safetensors *file, pt_error *err)
{
    size_t n = json_object_size(file->header); /* at most HEADER_MAX, so an int holds it */
    file->entries = calloc(n ? n : 1, sizeof *file->entries);
    if (!file->entries)
        return pt_fail(err, PT_ENOMEM, "no memory for a list of %zu tensors", n);
    const char *key;
    json_t *value;
    json_object_foreach (file->header, key, value) {
        if (strcmp(key, METADATA) == 0) {
            PT_TRY(check_metadata(value, err));
            continue;
        }
        struct entry *entry = &file->entries[file->n_entries];
        entry->tensor.name = key;
        entry->rank = (size_t)file->n_entries++;
        if (read_entry(file, value, entry, err) != PT_OK) {
            char name[NAME_TEXT];
            return pt_fail_within(err, "tensor \"%s\"", shown(key, name));
        }
    }
    return PT_OK;
}

static int by_offset(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end) /* an empty tensor stands before the one that begins where it lies */
        return a->end < b->end ? -1 : 1;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

/* Sorts the tensors by offset; each must begin where the one before ends, the last at the end. */
static pt_status check_cover(pt_safetensors *file, pt_error *err)
{
    char name[NAME_TEXT];
    size_t end = 0;
    qsort(file->entries, (size_t)file->n_entries, sizeof *file->entries, by_offset);
    for (int i = 0; i < file->n_entries; i++) {
        const struct entry *entry = &file->entries[i];
        if (entry->begin != end)
            return pt_fail(err, PT_EINPUT,
                           "tensor \"%s\" begins at byte %zu of the data, but %zu was due: %s",
                           shown(entry->tensor.name, name), entry->begin, end,
                           entry->begin < end ? "two tensors overlap" : "there is a hole");
        end = entry->end;
    }
    if (end != file->data_bytes)
        return pt_fail(err, PT_EINPUT, "%zu bytes stand after the last tensor and belong to none",
                       file->data_bytes - end);
    return PT_OK;
}

/* Points every tensor at its bytes, or at an aligned copy where the offsets are crooked. */
static pt_status bind_data(pt_safetensors *file, pt_error *err)
{
    for (int i = 0; i < file->n_entries; i++) {
        struct entry *entry = &file->entries[i];
        pt_st_tensor *tensor = &entry->tensor;
        tensor->data = file->data + entry->begin;
        if ((uintptr_t)tensor->data % pt_dtype_bytes(tensor->dtype) == 0)
            continue;
        entry->copy = malloc(tensor->bytes ? tensor->bytes : 1);
        if (!entry->copy)
            return pt_fail(err, PT_ENOMEM, "no memory for a tensor of %zu bytes", tensor->bytes);
        memcpy(entry->copy, tensor->data, tensor->bytes);
        tensor->data = entry->copy;
    }
    return PT_OK;
}

static pt_status load(pt_safetensors *file, const char *path, pt_error *err)
{
    PT_TRY(map_file(file, path, err));
    PT_TRY(parse_header(file, err));
    PT_TRY(read_entries(file, err));
    PT_TRY(check_cover(file, err));
    return bind_data(file, err);
}

pt_status pt_safetensors_open(const char *path, pt_safetensors **ret_file, pt_error *err)
{
    pt_safetensors *file = calloc(1, sizeof *file);
    if (!file)
        return pt_fail(err, PT_ENOMEM, "%s: no memory to open it", path);
    pt_status status = load(file, path, err);
    if (status != PT_OK) {
        pt_safetensors_close(file);
        return pt_fail_within(err, "%s", path);
    }
    *ret_file = file;
    return PT_OK;
}

void pt_safetensors_close(pt_safetensors *file)
{
    if (!file)
        return;
    for (int i = 0; i < file->n_entries; i++)
        free(file->entries[i].copy);
    free(file->entries);
    json_decref(file->header);
    if (file->map)
        munmap(file->map, file->map_bytes);
    free(file);
}

int pt_safetensors_count(const pt_safetensors *file)
{
    return file->n_entries;
}

const pt_st_tensor *pt_safetensors_at(const pt_safetensors *file, int i)
{
    return &file->entries[i].tensor;
}

const pt_st_tensor *pt_safetensors_find(const pt_safetensors *file, const char *name)
{
    for (int i = 0; i < file->n_entries; i++)
        if (strcmp(file->entries[i].tensor.name, name) == 0)
            return &file->entries[i].tensor;
    return NULL;
}

const char *pt_safetensors_metadata(const pt_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, METADATA), key));
}
