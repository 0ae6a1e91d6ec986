/* safetensors files: u64 LE header size, a JSON header, then the data.
 * Format: https://github.com/huggingface/safetensors (README, "Format").
 *
 * A file is hostile input: the header is at most 100 MB, offsets must cover the data exactly
 * without holes or overlaps, and nothing is believed before it was checked. */
#ifndef PIPETRAIN_SAFETENSORS_H
#define PIPETRAIN_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "pipetrain/status.h"

typedef enum pt_dtype { PT_F32, PT_I64, PT_I32, PT_U8 } pt_dtype;

enum { PT_SAFETENSORS_DIMS = 8 };

typedef struct pt_st_tensor {
    const char *name; /* reading: owned by the file object; writing: the caller's */
    pt_dtype dtype;
    int ndim; /* 0 … 8; 0 is a scalar of one element */
    int64_t dims[PT_SAFETENSORS_DIMS];
    /* Reading: aligned for the dtype, owned by the file object. It points into the mapped file, or
     * to a copy where the file's offsets are not aligned. Writing: the caller's elements. */
    const void *data;
    size_t bytes; /* length of data */
} pt_st_tensor;

typedef struct pt_st_metadata {
    const char *key, *value;
} pt_st_metadata;

typedef struct pt_safetensors pt_safetensors;

/* Opens and checks a file. PT_EINPUT names the file and what is wrong with it. Tensors of a dtype
 * that is not listed above are refused by name. */
pt_status pt_safetensors_open(const char *path, pt_safetensors **ret_file, pt_error *err);
void pt_safetensors_close(pt_safetensors *file); /* NULL is fine */

int pt_safetensors_count(const pt_safetensors *file);
const pt_st_tensor *pt_safetensors_at(const pt_safetensors *file, int i); /* in data order */
const pt_st_tensor *pt_safetensors_find(const pt_safetensors *file, const char *name); /* or NULL */
const char *pt_safetensors_metadata(const pt_safetensors *file, const char *key);      /* or NULL */

/* Writes `path` by way of a temporary file, fsync and rename: it is whole or it is not there.
 * Tensors are stored in the order given; the header is padded with spaces to 8 bytes, so that the
 * same input always gives the same bytes. PT_EINPUT: two tensors or keys of one name, or a text
 * that is not UTF-8. PT_EIO: the file could not be written, and nothing is left behind; or its
 * folder could not be synced, and the whole file is there. */
pt_status pt_safetensors_write(const char *path, const pt_st_tensor *tensors, int n,
                               const pt_st_metadata *metadata, int n_metadata, pt_error *err);

/* What stands before the data in such a file: size field and padded header, as one run of bytes;
 * free() it. The tensors' data is not looked at and may be NULL. */
pt_status pt_safetensors_head(const pt_st_tensor *tensors, int n, const pt_st_metadata *metadata,
                              int n_metadata, char **ret_head, size_t *ret_bytes, pt_error *err);

size_t pt_dtype_bytes(pt_dtype dtype);     /* of one element */
const char *pt_dtype_name(pt_dtype dtype); /* as the format spells it: "F32" */

#endif
