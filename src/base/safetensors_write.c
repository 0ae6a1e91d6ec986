/* Writes safetensors files: the header as compact JSON in the caller's order, then the data. */
#include "pipetrain/safetensors.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "pipetrain/file.h"

enum { SIZE_FIELD = 8, HEADER_MAX = 100000000, HEADER_ALIGN = 8 };

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

pt_status pt_safetensors_head(const pt_st_tensor *tensors, int n, const pt_st_metadata *metadata,
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

static pt_status fill_file(pt_new_file *file, const char *head, size_t head_bytes,
                           const pt_st_tensor *tensors, int n, pt_error *err)
{
    PT_TRY(pt_file_add(file, head, head_bytes, err));
    for (int i = 0; i < n; i++)
        PT_TRY(pt_file_add(file, tensors[i].data, tensors[i].bytes, err));
    return PT_OK;
}

static pt_status replace(const char *path, const char *head, size_t head_bytes,
                         const pt_st_tensor *tensors, int n, pt_error *err)
{
    pt_new_file file;
    PT_TRY(pt_file_begin(path, &file, err));
    PT_TRY(pt_file_end(&file, fill_file(&file, head, head_bytes, tensors, n, err), err));
    return pt_file_sync_folder_of(path, err);
}

pt_status pt_safetensors_write(const char *path, const pt_st_tensor *tensors, int n,
                               const pt_st_metadata *metadata, int n_metadata, pt_error *err)
{
    char *head = NULL;
    size_t head_bytes = 0;
    pt_status status =
        pt_safetensors_head(tensors, n, metadata, n_metadata, &head, &head_bytes, err);
    if (status == PT_OK)
        status = replace(path, head, head_bytes, tensors, n, err);
    free(head);
    return status == PT_OK ? PT_OK : pt_fail_within(err, "%s", path);
}
